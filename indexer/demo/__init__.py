"""The product at work on a real, local Solana runtime; and the parts that its tests share.

surfnet/      starts the runtime
cluster       its JSON-RPC: send, wait, travel in time
instructions  how the programs want to be told
tokens        mints and their accounts
wallet        signs and sends; pays a Solana Pay URL as a person's wallet does
scenario      payments, each with a story and the state it must end in
screen        the table that shows them
"""
