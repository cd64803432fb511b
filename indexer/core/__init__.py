"""The core: values in, values out.

Nothing here awaits, reads a clock, draws a random number, logs, or touches the outside.
`now` is an argument where it is needed at all. What is read on the chain becomes a
`Transaction` (decode), its transfers (legs), a `Verdict` for each payment (verify) and at
last a `State` (settle). The order of the modules below is the order of that way:

    types · amounts · solana_pay · mint · payment     what was asked for
    transaction · decode · legs                       what happened on the chain
    match · verify · settle · events                  what follows from it
"""
