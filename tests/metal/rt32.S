/* SPDX-License-Identifier: Apache-2.0
 * Beginning of a 32-bit kernel; stubs of 256 vectors; run() and enter(). See rt.h. */
    .section .multiboot, "a"
    .long 0x1badb002, 3, -(0x1badb002 + 3)

    .text
    .globl _start
_start:
    cld
    mov $stack_top, %esp
    call reload
    call rt_main
1:  hlt
    jmp 1b

    /* Onto our GDT after tables() made it: called again by rt_main through lgdt; the multiboot
     * selectors 8 and 16 mean the same, so that nothing need be reloaded before. */
reload:
    lgdt boot_gdtr
    ljmp $8, $1f
1:  mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    mov %eax, %ss
    ret

    .data
    .balign 8
boot_gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
boot_gdtr:
    .word 23
    .long boot_gdt

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

    /* struct trap: vector error ip cs flags sp ss gpr[16] ds es fs gs cr2 handler_cs _flags _sp */
    .set T_GPR, 28
    .set T_DS, 92
    .set T_CR2, 108
    .set T_HCS, 112
common:
    push %eax
    push %ds
    mov $16, %eax
    mov %eax, %ds
    pop %eax
    mov %eax, trap+T_DS
    mov %es, %eax
    mov %eax, trap+T_DS+4
    mov %fs, %eax
    mov %eax, trap+T_DS+8
    mov %gs, %eax
    mov %eax, trap+T_DS+12
    pop %eax
    mov %eax, trap+T_GPR
    mov %ecx, trap+T_GPR+4
    mov %edx, trap+T_GPR+8
    mov %ebx, trap+T_GPR+12
    mov %ebp, trap+T_GPR+20
    mov %esi, trap+T_GPR+24
    mov %edi, trap+T_GPR+28
    mov %ss, %eax
    mov $16, %ecx
    mov %ecx, %es
    mov %ecx, %fs
    mov %ecx, %gs
    mov %cs, %ecx
    mov %ecx, trap+T_HCS
    pushf
    pop %ecx
    mov %ecx, trap+T_HCS+4
    lea 8(%esp), %ecx
    mov %ecx, trap+T_HCS+8
    cld
    mov %cr2, %ecx
    mov %ecx, trap+T_CR2
    pop %ecx
    mov %ecx, trap
    pop %ecx
    mov %ecx, trap+4
    pop %ecx
    mov %ecx, trap+8
    pop %ecx
    mov %ecx, trap+12
    pop %edx
    mov %edx, trap+16
    /* outer level or virtual-8086? then SS:ESP follow */
    test $0x20000, %edx
    jnz 2f
    and $3, %ecx
    mov %cs, %ebx
    and $3, %ebx
    cmp %ebx, %ecx
    jne 2f
    mov %esp, trap+20
    mov %eax, trap+24
    jmp 3f
2:  pop %ecx
    mov %ecx, trap+20
    pop %ecx
    mov %ecx, trap+24
    test $0x20000, %edx
    jz 3f
    pop %ecx
    mov %ecx, trap+T_DS+4
    pop %ecx
    mov %ecx, trap+T_DS
    pop %ecx
    mov %ecx, trap+T_DS+8
    pop %ecx
    mov %ecx, trap+T_DS+12
3:  mov trap+20, %ecx
    mov %ecx, trap+T_GPR+16
    /* the hook runs on a stack of its own */
    mov $16, %ecx
    mov %ecx, %ss
    mov $hook_top, %esp
    call rt_trap
    test %al, %al
    jnz resume
    mov recover, %esp
    mov trap, %eax
    pop %edi
    pop %esi
    pop %ebx
    pop %ebp
    ret

resume:
    mov trap+16, %edx
    test $0x20000, %edx
    jnz 5f
    mov trap+12, %eax
    test $3, %al
    jnz 4f
    /* same level: an IRET frame below the interrupted stack */
    mov trap+20, %esp
    mov trap+24, %eax
    mov %eax, %ss
    push %edx
    pushl trap+12
    pushl trap+8
    jmp 6f
5:  pushl trap+T_DS+12
    pushl trap+T_DS+8
    pushl trap+T_DS
    pushl trap+T_DS+4
4:  pushl trap+24
    pushl trap+20
    push %edx
    pushl trap+12
    pushl trap+8
6:  mov trap+T_GPR+4, %ecx
    mov trap+T_GPR+8, %edx
    mov trap+T_GPR+12, %ebx
    mov trap+T_GPR+20, %ebp
    mov trap+T_GPR+24, %esi
    mov trap+T_GPR+28, %edi
    testl $0x20000, trap+16
    jnz 7f
    mov trap+T_DS+4, %eax
    mov %eax, %es
    mov trap+T_DS+8, %eax
    mov %eax, %fs
    mov trap+T_DS+12, %eax
    mov %eax, %gs
    mov trap+T_DS, %eax
    push %eax
    mov trap+T_GPR, %eax
    pop %ds
    iret
7:  mov trap+T_GPR, %eax
    iret

    .globl run
run:
    mov 4(%esp), %eax
    mov 8(%esp), %ecx
    push %ebp
    push %ebx
    push %esi
    push %edi
    mov %esp, recover
    push %ecx
    call *%eax
    add $4, %esp
    mov $-1, %eax
    pop %edi
    pop %esi
    pop %ebx
    pop %ebp
    ret

    /* struct start: ip cs flags sp ss gpr[16] es ds fs gs */
    .globl enter
enter:
    mov 4(%esp), %eax
    push %ebp
    push %ebx
    push %esi
    push %edi
    mov %esp, recover
    testl $0x20000, 8(%eax)
    jz 1f
    pushl 96(%eax)
    pushl 92(%eax)
    pushl 88(%eax)
    pushl 84(%eax)
    jmp 2f
1:  testb $3, 4(%eax)
    jz 3f
2:  pushl 16(%eax)
    pushl 12(%eax)
3:  pushl 8(%eax)
    pushl 4(%eax)
    pushl (%eax)
    mov 24(%eax), %ecx
    mov 28(%eax), %edx
    mov 32(%eax), %ebx
    mov 40(%eax), %ebp
    mov 44(%eax), %esi
    mov 48(%eax), %edi
    testl $0x20000, 8(%eax)
    jnz 4f
    testb $3, 4(%eax)
    jz 4f
    push 20(%eax)
    mov 84(%eax), %es
    mov 92(%eax), %fs
    mov 96(%eax), %gs
    mov 88(%eax), %eax
    mov %eax, %ds
    pop %eax
    iret
4:  mov 20(%eax), %eax
    iret

    .bss
    .globl recover
recover: .long 0
    .balign 16
    .skip 65536
stack_top:
    .skip 16384
hook_top:
    .section .note.GNU-stack, "", @progbits
