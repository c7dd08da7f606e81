# What the kernel's sample runs: five port writes, a read, a write of what was read, then it halts. Each byte means
# the same in 16-bit and in 32-bit code, so a hypervisor that knows only one of them runs it. It lies at address 0.
.code16
.globl guest16, guest16_end
.section .rodata
guest16:
  xorw %dx, %dx
  movb $0x03, %dh
  movb $0xf8, %dl
  movb $'A', %al
1:
  outb %al, %dx
  incb %al
  cmpb $'F', %al
  jne 1b
  movb $0xfd, %dl
  inb %dx, %al
  movb $0xf8, %dl
  outb %al, %dx
2:
  hlt
  jmp 2b
guest16_end:
.section .note.GNU-stack, "", @progbits
