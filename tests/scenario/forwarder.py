"""Programs of our own for the runtime: one that calls another, and one that does nothing.

Calling is how vaults and smart wallets pay: the transfer is not at top level, and names the
references because whoever built the transaction passed them along. Our caller's first account
is the program to call; the rest of its accounts and its data are passed on as they are. No
account may be given twice.

They are a few instructions of machine code, made here, so that no compiler and no downloaded
binary is needed.

Sources: the ELF loader and instruction set of solana-sbpf, version 0; how the loader lays out
a program's input; the C structures that `sol_invoke_signed_c` reads.
"""

import struct
from typing import Final

from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from indexer.demo.cluster import Cluster


LOADER: Final = "BPFLoader2111111111111111111111111111111111"
LAMPORTS: Final = 10**9

# ------------------------------------------------------------------------------ machine code

_MOV, _MOV_TO, _ADD, _ADD_TO, _SUB, _AND = 0xBF, 0xB7, 0x07, 0x0F, 0x17, 0x57
_LOAD_BYTE, _LOAD, _STORE_BYTE, _STORE = 0x71, 0x79, 0x73, 0x7B
_JUMP, _JUMP_IF_EQUAL, _CALL, _EXIT = 0x05, 0x15, 0x85, 0x95

_INSTRUCTION_SIZE: Final = 8
_FRAME: Final = 10  # the register that points at the end of the stack frame

#: Where things stand in the stack frame: the number of accounts, an array of SolAccountInfo (56
#: bytes each), one of SolAccountMeta (16 bytes each), and the SolInstruction.
_COUNT, _INFOS, _METAS, _CALLED = -8, -1024, -1280, -1320
_INFO_SIZE, _META_SIZE = 56, 16

#: In a program's input each account has 8 bytes of flags, its key, its owner, lamports, the
#: length of its data, the data with room to grow and padding, and the rent epoch.
_KEY_AT, _DATA_LENGTH_AT, _DATA_AT = 8, 80, 88
_ROOM_TO_GROW: Final = 10_240


def _op(code: int, to: int = 0, of: int = 0, offset: int = 0, number: int = 0) -> bytes:
    return struct.pack("<BBhi", code, of << 4 | to, offset, number)


_SET_UP: Final = (
    _op(_MOV, 6, _FRAME) + _op(_ADD, 6, number=_INFOS),
    _op(_MOV, 9, _FRAME) + _op(_ADD, 9, number=_METAS),
    _op(_LOAD, 7, 1),  # the number of accounts
    _op(_STORE, _FRAME, 7, _COUNT),
    _op(_MOV, 8, 1) + _op(_ADD, 8, number=8),  # the first account
)

#: For each account: r6 is its SolAccountInfo, r9 its SolAccountMeta, r8 where its input begins.
_EACH_ACCOUNT: Final = b"".join(
    (
        _op(_SUB, 7, number=1),
        _op(_MOV, 2, 8) + _op(_ADD, 2, number=_KEY_AT),
        _op(_STORE, 6, 2, 0) + _op(_STORE, 9, 2, 0),
        _op(_LOAD_BYTE, 3, 8, 1) + _op(_STORE_BYTE, 6, 3, 48) + _op(_STORE_BYTE, 9, 3, 9),  # signer
        _op(_LOAD_BYTE, 3, 8, 2)
        + _op(_STORE_BYTE, 6, 3, 49)
        + _op(_STORE_BYTE, 9, 3, 8),  # writable
        _op(_LOAD_BYTE, 3, 8, 3) + _op(_STORE_BYTE, 6, 3, 50),  # executable
        _op(_ADD, 2, number=32) + _op(_STORE, 6, 2, 32),  # owner
        _op(_ADD, 2, number=32) + _op(_STORE, 6, 2, 8),  # lamports
        _op(_LOAD, 3, 8, _DATA_LENGTH_AT) + _op(_STORE, 6, 3, 16),
        _op(_ADD, 2, number=16) + _op(_STORE, 6, 2, 24),  # data
        _op(_ADD, 3, number=_ROOM_TO_GROW + 7) + _op(_AND, 3, number=-8),
        _op(_ADD_TO, 8, 3) + _op(_ADD, 8, number=_DATA_AT),
        _op(_LOAD, 3, 8) + _op(_STORE, 6, 3, 40),  # rent epoch
        _op(_ADD, 8, number=8) + _op(_ADD, 6, number=_INFO_SIZE) + _op(_ADD, 9, number=_META_SIZE),
    )
)

_SKIP: Final = len(_EACH_ACCOUNT) // _INSTRUCTION_SIZE + 1
_LOOP: Final = (
    _op(_JUMP_IF_EQUAL, 7, offset=_SKIP, number=0),
    _EACH_ACCOUNT,
    _op(_JUMP, offset=-(_SKIP + 1)),
)

_INVOKE: Final = (
    _op(_LOAD, 2, _FRAME, _INFOS) + _op(_STORE, _FRAME, 2, _CALLED),  # key of the first account
    _op(_MOV, 2, _FRAME) + _op(_ADD, 2, number=_METAS + _META_SIZE),  # all accounts but that
    _op(_STORE, _FRAME, 2, _CALLED + 8),
    _op(_LOAD, 3, _FRAME, _COUNT),
    _op(_MOV, 2, 3) + _op(_SUB, 2, number=1) + _op(_STORE, _FRAME, 2, _CALLED + 16),
    _op(_MOV, 2, 8) + _op(_ADD, 2, number=8) + _op(_STORE, _FRAME, 2, _CALLED + 24),  # data
    _op(_LOAD, 2, 8) + _op(_STORE, _FRAME, 2, _CALLED + 32),  # its length
    _op(_MOV, 1, _FRAME) + _op(_ADD, 1, number=_CALLED),
    _op(_MOV, 2, _FRAME) + _op(_ADD, 2, number=_INFOS),
    _op(_MOV_TO, 4) + _op(_MOV_TO, 5),  # no seeds
)

#: What comes before the one system call, after which each program ends.
FORWARDING: Final = b"".join((*_SET_UP, *_LOOP, *_INVOKE))
NOTHING: Final = _op(_MOV_TO, 0) + _op(_EXIT)  # succeeds and never gets to the call

# --------------------------------------------------------------------------------------- ELF

_HEADER_SIZE: Final = 64
_SYSTEM_CALL: Final = b"sol_invoke_signed_c"
_PROGBITS, _STRINGS, _DYNAMIC, _RELOCATIONS, _SYMBOLS = 1, 3, 6, 9, 11
_ALLOCATED_EXECUTABLE: Final = 2 | 4


def elf(before_call: bytes) -> bytes:
    """The program as a shared object whose one relocation is the system call."""
    text = before_call + _op(_CALL, number=-1) + _op(_EXIT)
    text_at = _HEADER_SIZE
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 0x10, 0, 0, 0, 0)
    relocation = struct.pack("<QQ", text_at + len(before_call), 1 << 32 | 10)
    relocation_at = text_at + len(text) + len(symbols)
    dynamic = b"".join(
        struct.pack("<QQ", tag, value)
        for tag, value in (
            (17, relocation_at),  # DT_REL
            (18, len(relocation)),  # DT_RELSZ
            (19, len(relocation)),  # DT_RELENT
            (6, text_at + len(text)),  # DT_SYMTAB
            (0, 0),
        )
    )
    names = b"\0.text\0.dynsym\0.rel.dyn\0.dynamic\0.dynstr\0.shstrtab\0"
    sections = (
        (b".text", _PROGBITS, _ALLOCATED_EXECUTABLE, text),
        (b".dynsym", _SYMBOLS, 0, symbols),
        (b".rel.dyn", _RELOCATIONS, 0, relocation),
        (b".dynamic", _DYNAMIC, 0, dynamic),
        (b".dynstr", _STRINGS, 0, b"\0" + _SYSTEM_CALL + b"\0"),
        (b".shstrtab", _STRINGS, 0, names),
    )
    body, headers = b"", bytes(64)
    for name, kind, flags, content in sections:
        at = _HEADER_SIZE + len(body)
        headers += struct.pack(
            "<IIQQQQIIQQ", names.index(name), kind, flags, at, at, len(content), 0, 0, 8, 0
        )
        body += content
    body += bytes(-len(body) % 8)
    table_at = _HEADER_SIZE + len(body)
    header = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header += struct.pack(
        "<HHIQQQIHHHHHH", 3, 247, 1, text_at, _HEADER_SIZE, table_at, 0, 64, 56, 0, 64, 7, 6
    )
    return header + body + headers


# ------------------------------------------------------------------------------------ its use


async def deploy(cluster: Cluster, before_call: bytes) -> Pubkey:
    """Puts a program where the runtime finds it, and returns its address."""
    address = Keypair().pubkey()
    data = elf(before_call).hex()
    account = {"lamports": LAMPORTS, "data": data, "owner": LOADER, "executable": True}
    await cluster.call("surfnet_setAccount", str(address), account)
    return address


def called_by(forwarder: Pubkey, instruction: Instruction) -> Instruction:
    """The instruction, executed by a call from a program that forwards."""
    callee = AccountMeta(instruction.program_id, is_signer=False, is_writable=False)
    return Instruction(forwarder, instruction.data, [callee, *instruction.accounts])
