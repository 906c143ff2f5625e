/* SPDX-License-Identifier: Apache-2.0
 * Beginning of a 64-bit kernel (in an ELF32 container): long mode with the first 4 GiB mapped by
 * 2 MiB pages; stubs of 256 vectors; run() and enter(). See rt.h. */
    .section .multiboot, "a"
    .long 0x1badb002, 3, -(0x1badb002 + 3)

    .text
    .code32
    .globl _start
_start:
    cld
    mov $stack_top, %esp
    mov $boot_pd, %edi
    mov $0x83, %eax
    xor %edx, %edx
1:  mov %eax, (%edi)
    mov %edx, 4(%edi)
    add $8, %edi
    add $0x200000, %eax
    jnc 1b
    mov $boot_pd + 3, %eax
    mov $boot_pdpt, %edi
    mov $4, %ecx
2:  mov %eax, (%edi)
    add $4096, %eax
    add $8, %edi
    loop 2b
    movl $boot_pdpt + 3, boot_pml4
    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x620, %eax             /* PAE, OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    mov $0xc0000080, %ecx
    rdmsr
    or $0x901, %eax             /* SCE, LME, NXE */
    wrmsr
    mov %cr0, %eax
    or $0x80010002, %eax        /* PG, WP, MP */
    and $~0x4, %eax
    mov %eax, %cr0
    lgdt boot_gdtr
    ljmp $8, $1f
    .code64
1:  mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $stack_top, %rsp
    call rt_main
1:  hlt
    jmp 1b

    .data
    .balign 8
boot_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
boot_gdtr:
    .word 23
    .quad boot_gdt

    .text
    .macro stub n
    .balign 16
    .if \n == 8 || (\n >= 10 && \n <= 14) || \n == 17
    .else
    push $0
    .endif
    push $\n
    jmp common
    .endm

    .globl stubs
    .balign 16
stubs:
    .set i, 0
    .rept 256
    stub i
    .set i, i + 1
    .endr

    .set T_GPR, 56
    .set T_DS, 184
    .set T_CR2, 216
    .set T_HCS, 224
common:
    mov %rax, trap+T_GPR
    mov %rcx, trap+T_GPR+8
    mov %rdx, trap+T_GPR+16
    mov %rbx, trap+T_GPR+24
    mov %rbp, trap+T_GPR+40
    mov %rsi, trap+T_GPR+48
    mov %rdi, trap+T_GPR+56
    mov %r8, trap+T_GPR+64
    mov %r9, trap+T_GPR+72
    mov %r10, trap+T_GPR+80
    mov %r11, trap+T_GPR+88
    mov %r12, trap+T_GPR+96
    mov %r13, trap+T_GPR+104
    mov %r14, trap+T_GPR+112
    mov %r15, trap+T_GPR+120
    mov %ds, %eax
    mov %rax, trap+T_DS
    mov %es, %eax
    mov %rax, trap+T_DS+8
    mov %fs, %eax
    mov %rax, trap+T_DS+16
    mov %gs, %eax
    mov %rax, trap+T_DS+24
    mov %cs, %eax
    mov %rax, trap+T_HCS
    pushf
    pop trap+T_HCS+8
    lea 16(%rsp), %rax
    mov %rax, trap+T_HCS+16
    cld
    mov %cr2, %rax
    mov %rax, trap+T_CR2
    pop trap
    pop trap+8
    pop trap+16
    pop trap+24
    pop trap+32
    pop trap+40
    pop trap+48
    mov trap+40, %rax
    mov %rax, trap+T_GPR+32
    mov $16, %eax
    mov %eax, %ss
    mov %eax, %ds
    mov %eax, %es
    mov $hook_top, %rsp
    call rt_trap
    test %al, %al
    jnz resume
    mov recover, %rsp
    mov trap, %eax
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret

resume:
    mov trap+T_DS, %eax
    mov %eax, %ds
    mov trap+T_DS+8, %eax
    mov %eax, %es
    pushq trap+48
    pushq trap+40
    pushq trap+32
    pushq trap+24
    pushq trap+16
    mov trap+T_GPR, %rax
    mov trap+T_GPR+8, %rcx
    mov trap+T_GPR+16, %rdx
    mov trap+T_GPR+24, %rbx
    mov trap+T_GPR+40, %rbp
    mov trap+T_GPR+48, %rsi
    mov trap+T_GPR+56, %rdi
    mov trap+T_GPR+64, %r8
    mov trap+T_GPR+72, %r9
    mov trap+T_GPR+80, %r10
    mov trap+T_GPR+88, %r11
    mov trap+T_GPR+96, %r12
    mov trap+T_GPR+104, %r13
    mov trap+T_GPR+112, %r14
    mov trap+T_GPR+120, %r15
    iretq

    .globl run
run:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, recover
    mov %rdi, %rax
    mov %rsi, %rdi
    sub $8, %rsp
    call *%rax
    add $8, %rsp
    mov $-1, %eax
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret

    /* struct start: ip cs flags sp ss gpr[16] es ds fs gs */
    .globl enter
enter:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, recover
    mov 176(%rdi), %eax
    mov %eax, %ds
    mov 168(%rdi), %eax
    mov %eax, %es
    pushq 32(%rdi)
    pushq 24(%rdi)
    pushq 16(%rdi)
    pushq 8(%rdi)
    pushq (%rdi)
    mov 40(%rdi), %rax
    mov 48(%rdi), %rcx
    mov 56(%rdi), %rdx
    mov 64(%rdi), %rbx
    mov 80(%rdi), %rbp
    mov 88(%rdi), %rsi
    mov 104(%rdi), %r8
    mov 112(%rdi), %r9
    mov 120(%rdi), %r10
    mov 128(%rdi), %r11
    mov 136(%rdi), %r12
    mov 144(%rdi), %r13
    mov 152(%rdi), %r14
    mov 160(%rdi), %r15
    mov 96(%rdi), %rdi
    iretq

    .bss
    .globl recover, boot_gdt, boot_pml4, boot_pd, boot_pdpt
recover: .quad 0
    .balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd: .skip 16384
    .balign 16
    .skip 65536
stack_top:
    .skip 16384
hook_top:
    .section .note.GNU-stack, "", @progbits
