"""What a guest did to a device's memory: the instruction is decoded and done in the CPU's place.

`decoder` makes an Instruction of bytes, with capstone; `arithmetic` knows results and flags; `space` reaches the
guest's memory and the devices by linear address; `emulator` knows the operands of an instruction and who does it:
`explicit` if its text has all of them, `implicit` if not, `strings` if it repeats.

Done are MOV with all its relatives (MOVZX, MOVSX, MOVBE, CMOVcc, SETcc, 16-byte SSE moves), ADD to XOR, CMP, TEST, INC,
DEC, NEG, NOT, the shifts, BT to BTC, XCHG, XADD, CMPXCHG to CMPXCHG16B, MUL to IDIV, PUSH, POP, and MOVS, STOS, LODS,
SCAS and CMPS with any prefix. Others, such as jumps through a device, are Undecodable. Not done: limits of segments,
which the CPU has checked for the access that it stopped at, and TF.
"""
