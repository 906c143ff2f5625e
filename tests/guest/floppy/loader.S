# SPDX-License-Identifier: Apache-2.0
#
# What the boot sector loads: long enough for a chain of clusters, the end of which it looks at.
# Then it tries drive B:, writes to drive A:, and leaves through the exit port with what came of it.
        .code16
        .globl  _start
        .set    EXIT_PORT, 0xf4

_start: mov     %cs, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     $reached, %si
        call    print
        cmpl    $0x21444e45, tail       # the last cluster came, too
        jne     failed
        mov     $whole, %si
        call    print

        mov     $0x0201, %ax            # cylinder 39, head 0, sector 9 of B:
        mov     $0x2709, %cx
        mov     $0x0001, %dx
        mov     $buffer, %bx
        int     $0x13
        jc      failed
        mov     $buffer, %si
        call    print

        mov     $0x0301, %ax            # the last sector of A:
        mov     $0x4f12, %cx
        mov     $0x0100, %dx
        mov     $reached, %bx
        int     $0x13
        jc      failed
        mov     $0x0301, %ax            # B: is write-protected
        mov     $0x0001, %cx
        mov     $0x0001, %dx
        mov     $reached, %bx
        int     $0x13
        jnc     failed
        mov     $done, %si
        call    print
        xor     %al, %al
        out     %al, $EXIT_PORT
failed: mov     $wrong, %si
        call    print
        mov     $1, %al
        out     %al, $EXIT_PORT

print:  lodsb
        test    %al, %al
        jz      1f
        mov     $0x0e, %ah
        xor     %bx, %bx
        int     $0x10
        jmp     print
1:      ret

reached: .asciz "The loader is reached.\r\n"
whole:  .asciz  "All of it is here.\r\n"
done:   .asciz  "Written.\r\n"
wrong:  .asciz  "Something is wrong.\r\n"
buffer: .org    5000
tail:   .ascii  "END!"
