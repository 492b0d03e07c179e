"""The instructions a kernel for bare metal needs, in the spellings that are accepted, by mode."""

from typing import Final

_LONG = """
mov rax, qword ptr gs:[0x10]
mov rcx, gs:[0x10]
mov eax, [0x1000]
mov al, gs:[0x10]
mov qword ptr fs:[8], 5
mov dword ptr [rip + target], 0x15263748
mov byte ptr [rip + target + 4], 1
mov word ptr [rip + target], 0x1234
mov rax, [rip + outside + 8]
cmp dword ptr [rip + target], 5
inc dword ptr gs:[0x10]
mov edi, target
mov eax, second - first
mov rax, second - first + 4
mov rax, [rdi + second - first]
add dword ptr [rip + target], second - first
mov qword ptr [rdi], second - first
lock cmpxchg byte ptr [rdi], cl
lock xadd [rdi], rcx
lock cmpxchg8b [rdi]
lock cmpxchg16b [rdi]
lock bts qword ptr [rdi], 5
lock btr [rdi], eax
lock or dword ptr gs:[0x10], 1
lock and qword ptr [rdi], -8
lock add word ptr gs:[rdi], cx
lock inc dword ptr [rdi]
lock not byte ptr [rdi]
lock xchg [rdi], eax
xchg rax, rcx
xchg rcx, [rdi]
xchg eax, eax
xadd [rdi], cl
bt dword ptr [rdi], 5
bts [rdi], rax
bsf rax, rcx
bsr ecx, dword ptr [rdi]
shl eax, 1
shl rax, cl
shr dword ptr [rdi], 5
sar rax, 63
rol cx, 4
ror byte ptr [rdi], cl
sal eax, 3
shld rax, rcx, 5
mul rcx
mul dword ptr [rdi]
div qword ptr [rdi]
imul rcx
imul rax, rcx
imul rax, rcx, 5
imul eax, dword ptr [rdi], 0x1000
neg rax
not ecx
movzx eax, byte ptr [rdi]
movzx eax, ah
movsx rax, word ptr [rdi]
movsx rax, al
movsxd rax, dword ptr [rdi]
movsxd rax, ecx
cmovne rax, rcx
cmovnae eax, ecx
cmovc rax, [rdi]
setne al
setnz byte ptr [rdi]
test rcx, rdx
test rcx, [rdi]
test rax, -1
test al, 5
lea rax, [rdi + rcx*4 - 8]
lea rsi, [rip + target + 4]
lea eax, [rdi + 4]
nop
pause
mfence
lfence
sfence
popcnt rax, rcx
crc32 eax, byte ptr [rdi]
crc32 rax, rcx
swapgs
movups xmm0, [rdi]
movaps xmmword ptr [rdi], xmm15
movdqu [rdi], xmm3
movdqa xmm8, xmm1
movntdq [rdi], xmm3
movnti [rdi], rax
movq xmm0, rax
movq xmm0, [rdi]
movd eax, xmm0
movss [rdi], xmm0
movsd xmm0, qword ptr [rdi]
pxor xmm0, xmm0
pshufd xmm0, xmm1, 0x1b
shufps xmm0, xmm1, 255
cvtsi2sd xmm0, qword ptr [rdi]
vmovdqu ymm1, [rdi]
vzeroupper
in al, dx
in eax, 0x10
in ax, dx
out dx, al
out dx, ax
out dx, eax
out 0x80, al
vmrun rax
vmload rax
vmsave rax
vmmcall
stgi
clgi
invlpga rax, ecx
skinit eax
vmcall
vmlaunch
vmread [rdi], rax
vmclear [rdi]
vmptrld [rdi]
invept rax, [rdi]
invpcid rax, [rdi]
icebp
int3
int 0x20
ud2
hlt
cli
sti
cld
clac
stac
clts
invd
wbinvd
wbnoinvd
cpuid
rdtsc
rdtscp
rdpmc
rdrand eax
rdseed rax
rdmsr
wrmsr
xsetbv
xgetbv
xsave64 [rdi]
xrstor64 [rdi]
xsaveopt [rdi]
fxsave64 [rdi]
fxrstor64 [rsp + 0x40]
fninit
fnstsw ax
fldcw [rdi]
ldmxcsr [rdi]
stmxcsr [rdi]
rep movsb
rep movsd
rep movsq
rep stosb
rep stosq
rep stosd
repne scasb
repe cmpsb
lodsb
stosw
invlpg [rdi]
invlpg gs:[0x10]
monitor
mwait
clflush [rdi]
clflushopt [rdi]
clwb [rdi]
prefetcht0 [rdi]
prefetchw [rdi]
mov cr0, rax
mov cr3, rax
mov cr4, rax
mov rax, cr2
mov rax, cr8
mov cr8, rax
mov dr7, rax
mov rax, dr6
mov ds, ax
mov ds, eax
mov fs, r9w
mov eax, ds
mov ax, ds
mov word ptr [rdi], ds
mov ds, word ptr [rdi]
ltr ax
str eax
lldt ax
sldt ax
lar eax, ecx
verw ax
lgdt [rdi]
lidt [rip + target]
sgdt [rdi]
sidt [rsp]
lidt fs:[0x10]
iretq
retfq
sysretq
syscall
endbr64
ret
ret 8
pushfq
popfq
push 5
push 0x12345
push -1
push -0x80000000
push rax
push qword ptr [rdi]
push fs
pop gs
call rax
call qword ptr [rip + target]
jmp rax
jmp qword ptr [rax*8 + 0x100]
ljmp fword ptr [rdi]
ljmp dword ptr [rdi]
lcall fword ptr gs:[0x10]
ljmp dword ptr gs:[0x10]
mov rax, [rcx + rsp]
mov rax, [rsp + rcx*4]
mov rax, [rcx*2]
mov rax, [rcx*2 + 5]
mov rax, [rax + rax]
mov rax, [rdi + rcx*(4 + 4) + 6]
mov rax, [-8]
mov r10, [r12]
mov r10, [r13]
mov r10, [r12 + r13*8 - 128]
mov r10, [r13 + 128]
mov r10, [rbp + rbp*1]
mov rax, 0x7fffffff
mov rax, 0x80000000
mov rax, 0xffffffffffffffff
mov rax, 0x1122334455667788
mov eax, 'A'
mov eax, -1
and eax, 0xfffffff0
and eax, ~(1 << 31 | 1)
and rax, ~0xf
cmp rax, -0x80000000
add word ptr [rdi], 0xffff
add byte ptr [rdi], 255
adc byte ptr [rdi], -128
bswap rax
cdqe
cqo
leave
andn eax, ecx, edx
movbe eax, [rdi]
rdfsbase rax
wrgsbase rcx
"""

_PROTECTED = """
mov esi, target
mov eax, [target]
mov [target + eax*4], ecx
mov byte ptr [target], 5
mov word ptr [target], ax
mov eax, [0xfee00000]
mov eax, [ebp + first - second]
mov eax, gs:[0x10]
or dword ptr [eax + 0xffc], -1
push target
add eax, target
push 0xffffffff
push cs
pop es
push fs
pushad
lgdt [target]
lidt [target + 4]
iretd
pushfd
popfd
ret
ret 4
ljmp 8:0x12345678
ljmp 8:target
ljmp fword ptr [ebx]
ljmp dword ptr [ebx]
mov ds, ax
mov cr0, eax
mov cr3, eax
rdmsr
wrmsr
cpuid
bts eax, 31
inc eax
rep movsd
rep stosd
call eax
jmp dword ptr [eax]
lea esi, [ebx + 4]
in al, dx
hlt
"""

_REAL = """
cli
cld
mov ax, cs
mov ds, ax
mov ss, ax
xor ax, ax
mov si, target
mov esi, target
mov ax, [target]
mov eax, [target]
mov eax, [bx + si + target]
mov eax, [ebx + target]
mov eax, [ebx + second - first]
mov ax, [second - first]
mov ax, second - first
mov ax, [bp]
mov ax, [bp + di - 5]
mov ax, [0xfff0]
mov word ptr [target], 5
mov dword ptr [target], 5
lgdt [target]
lgdtd [target]
lgdtd cs:[target]
lidt [bx]
lidtd [bx]
mov eax, cr0
or eax, 1
mov cr0, eax
mov cr4, eax
or eax, 0x80000001
wrmsr
ljmp 8:0x1234
ljmp 8:target
ljmp dword 8:0x12345678
ljmp dword 8:target
ljmp fword ptr [target]
ljmp dword ptr [bx]
ret
retf
iretw
iretd
pushfw
pushfd
push ax
push eax
push cs
pop ds
in al, 0x92
out 0x92, al
in eax, dx
rep movsb
rep movsd
rep stosw
movzx eax, al
shl eax, 4
call ax
jmp ax
add sp, 4
lea si, [bx + 5]
hlt
"""

FORMS: Final[dict[int, tuple[str, ...]]] = {
    bits: tuple(text.strip().splitlines()) for bits, text in ((64, _LONG), (32, _PROTECTED), (16, _REAL))
}
