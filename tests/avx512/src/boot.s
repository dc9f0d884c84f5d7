# From the boot sector in real mode to 64-bit code with AVX-512: reads the rest of
# the image behind itself, maps the first GB to itself, and calls `start`.
.section .boot, "ax"
.code16
.globl boot
boot:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    sti
    cld
    movw $__chunks, %cx
read:
    movb $0x42, %ah
    movw $packet, %si
    pushw %cx
    int $0x13
    popw %cx
    jc fail
    addw $0x800, packet + 6
    addl $64, packet + 8
    loop read

    # Page tables: one of each level, 512 pages of 2 MB.
    cli
    movw $0x1000, %di
    xorl %eax, %eax
    movw $0xc00, %cx
    rep stosl
    movl $0x2003, 0x1000
    movl $0x3003, 0x2000
    movw $0x3000, %di
    movl $0x83, %eax
    movw $512, %cx
page:
    movl %eax, (%di)
    addl $0x200000, %eax
    addw $8, %di
    loop page

    # The address line that old programs wanted off.
    inb $0x92, %al
    orb $2, %al
    andb $0xfe, %al
    outb %al, $0x92
    # PAE, OSFXSR, OSXMMEXCPT, OSXSAVE.
    movl $0x40620, %eax
    movl %eax, %cr4
    movl $0x1000, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    lgdtl gdt_pointer
    # Paging, numeric errors, no emulation of floating point, protected mode.
    movl $0x80000033, %eax
    movl %eax, %cr0
    ljmpl $8, $long

fail:
    movb $'F', %al
    outb %al, $0xe9
    hlt

.code64
long:
    movw $16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movq $0x600000, %rsp
    # All of the vector registers' state: x87, SSE, AVX, masks, upper halves.
    xorl %ecx, %ecx
    xorl %edx, %edx
    movl $0xe7, %eax
    xsetbv
    movq $__bss_start, %rdi
    movq $__bss_size, %rcx
    xorl %eax, %eax
    rep stosb
    movq $load_tables, %rax
    call *%rax
    movq $start, %rax
    call *%rax

.balign 8
gdt:
    .quad 0, 0x00209a0000000000, 0x0000920000000000
gdt_pointer:
    .word 23
    .long gdt
# What the BIOS is asked to read: 64 sectors to 07e0:0000, from sector 1.
packet:
    .byte 16, 0
    .word 64, 0, 0x7e0
    .quad 1

.org 510
    .word 0xaa55

# Reads the tables from the first disk, a sector at a time, by the ports of its controller.
.section .text.load_tables, "ax"
.code64
load_tables:
    movq $__rodata, %rdi
    movl $__rodata_sector, %r8d
    movl $__rodata_sectors, %r9d
next_sector:
    movw $0x1f7, %dx
ready:
    inb %dx, %al
    testb $0x80, %al
    jnz ready
    # The first drive, by the number of a sector.
    movl %r8d, %eax
    shrl $24, %eax
    orb $0xe0, %al
    movw $0x1f6, %dx
    outb %al, %dx
    movw $0x1f2, %dx
    movb $1, %al
    outb %al, %dx
    movl %r8d, %eax
    movw $0x1f3, %dx
    outb %al, %dx
    shrl $8, %eax
    movw $0x1f4, %dx
    outb %al, %dx
    shrl $8, %eax
    movw $0x1f5, %dx
    outb %al, %dx
    movw $0x1f7, %dx
    movb $0x20, %al
    outb %al, %dx
data:
    inb %dx, %al
    testb $0x80, %al
    jnz data
    testb $8, %al
    jz data
    movw $0x1f0, %dx
    movl $256, %ecx
    rep insw
    incl %r8d
    decl %r9d
    jnz next_sector
    ret
