; hello: the smallest guest that uses every kind of request a hypervisor has to serve.
;
; It writes and reads a serial port, takes timer interrupts, touches one device register in memory
; and says through a port how it ended. guests/README.md lists the memory map and the ports.
;
; Started in 32-bit protected mode with flat segments, interrupts off and a stack. It needs no BIOS,
; no boot loader and no paging. The instructions are kept to a small set on purpose: the simulated
; vCPU interprets this very image, and each further opcode would have to be written there too.
; For the same reason ports go through edx, not dx: no operand-size prefix is needed anywhere.

LOAD_ADDRESS    equ 0x1000              ; guest physical; the entry point is the first byte

bits 32
org LOAD_ADDRESS

CODE_SELECTOR   equ 0x08                ; the selectors the loader starts us with, so that
DATA_SELECTOR   equ 0x10                ; the loaded GDT changes nothing that is already in use

UART_DATA       equ 0x3F8               ; 16550 on COM1; with DLAB set: divisor, low byte
UART_IER        equ 0x3F9               ; interrupt enable; with DLAB set: divisor, high byte
UART_FCR        equ 0x3FA
UART_LCR        equ 0x3FB
UART_MCR        equ 0x3FC
UART_LSR        equ 0x3FD
LCR_DLAB        equ 0x80
LCR_8N1         equ 0x03
FCR_ON_CLEAR    equ 0x07                ; FIFOs on, both emptied
MCR_DTR_RTS     equ 0x03
LSR_DATA_READY  equ 0x01
LSR_THR_EMPTY   equ 0x20

PIC1_COMMAND    equ 0x20
PIC1_DATA       equ 0x21
PIC2_COMMAND    equ 0xA0
PIC2_DATA       equ 0xA1
PIC_EOI         equ 0x20
FIRST_VECTOR    equ 0x20                ; the first one that is not an exception of the processor

PIT_CHANNEL0    equ 0x40
PIT_COMMAND     equ 0x43
PIT_DIVISOR     equ 11932               ; 1,193,182 Hz / 11,932 = 100 Hz
TICKS_WANTED    equ 3

DEVICE_REGISTER equ 0xE0000000          ; far above any RAM the guest is given, so a load is a request
DEVICE_VALUE    equ 0x600DCAFE

EXIT_PORT       equ 0xF4
EXIT_SUCCESS    equ 0x00
EXIT_UNEXPECTED equ 0xFF

start:
        ; An interrupt reloads CS from a descriptor table in memory. The loader set the segments
        ; without one, so it has to exist before the first sti.
        lgdt    [gdt_pointer]
        jmp     CODE_SELECTOR:.reload
.reload:
        mov     eax, DATA_SELECTOR
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        lidt    [idt_pointer]

        call    uart_init
        mov     esi, text_banner
        call    put_string

        call    echo_one_byte
        call    count_ticks
        call    touch_device

        mov     al, EXIT_SUCCESS
        jmp     exit

; ---------------------------------------------------------------------------------------------
; Serial port

uart_init:
        mov     edx, UART_IER           ; polled: a serial interrupt would arrive at a masked input anyway
        mov     al, 0
        out     dx, al
        mov     edx, UART_LCR
        mov     al, LCR_DLAB
        out     dx, al
        mov     edx, UART_DATA          ; divisor 1: 115,200 baud
        mov     al, 1
        out     dx, al
        mov     edx, UART_IER
        mov     al, 0
        out     dx, al
        mov     edx, UART_LCR
        mov     al, LCR_8N1
        out     dx, al
        mov     edx, UART_FCR           ; empties the receiver: the host types after the prompt, not before
        mov     al, FCR_ON_CLEAR
        out     dx, al
        mov     edx, UART_MCR
        mov     al, MCR_DTR_RTS
        out     dx, al
        ret

; al = the byte. Keeps all registers but eax.
put_byte:
        push    edx
        mov     ah, al
        mov     edx, UART_LSR
.wait:
        in      al, dx
        test    al, LSR_THR_EMPTY
        jz      .wait
        mov     al, ah
        mov     edx, UART_DATA
        out     dx, al
        pop     edx
        ret

; al = the byte read.
get_byte:
        mov     edx, UART_LSR
.wait:
        in      al, dx
        test    al, LSR_DATA_READY
        jz      .wait
        mov     edx, UART_DATA
        in      al, dx
        ret

; esi = a string that ends with a zero byte.
put_string:
        lodsb
        test    al, al
        jz      .done
        call    put_byte
        jmp     put_string
.done:
        ret

; ebx = the value, printed as eight hexadecimal digits.
put_hex:
        mov     ecx, 8
.digit:
        mov     edx, ebx
        shr     edx, 28
        mov     al, [hex_digits + edx]
        call    put_byte
        shl     ebx, 4
        loop    .digit
        ret

put_line_end:
        mov     esi, text_line_end
        jmp     put_string

echo_one_byte:
        mov     esi, text_prompt
        call    put_string
        call    get_byte
        mov     ebx, eax                ; put_string needs al
        mov     esi, text_got
        call    put_string
        mov     al, bl
        call    put_byte
        jmp     put_line_end

; ---------------------------------------------------------------------------------------------
; Timer

count_ticks:
        mov     al, 0x11                ; ICW1: edge triggered, cascaded, ICW4 follows
        out     PIC1_COMMAND, al
        out     PIC2_COMMAND, al
        mov     al, FIRST_VECTOR        ; ICW2: the vectors at reset are those of the exceptions
        out     PIC1_DATA, al
        mov     al, FIRST_VECTOR + 8
        out     PIC2_DATA, al
        mov     al, 0x04                ; ICW3: the second controller sits on input 2
        out     PIC1_DATA, al
        mov     al, 0x02
        out     PIC2_DATA, al
        mov     al, 0x01                ; ICW4: 8086 mode
        out     PIC1_DATA, al
        out     PIC2_DATA, al
        mov     al, 0xFE                ; only input 0, the timer
        out     PIC1_DATA, al
        mov     al, 0xFF
        out     PIC2_DATA, al

        mov     al, 0x34                ; channel 0, low then high byte, mode 2 (rate generator), binary
        out     PIT_COMMAND, al
        mov     al, PIT_DIVISOR & 0xFF
        out     PIT_CHANNEL0, al
        mov     al, PIT_DIVISOR >> 8
        out     PIT_CHANNEL0, al

.wait:
        ; The count is looked at with interrupts off, and sti takes effect only after the instruction
        ; that follows it: no tick can slip in between the look and the hlt, which would then sleep
        ; through it.
        cli
        cmp     dword [ticks], TICKS_WANTED
        jae     .done
        sti
        hlt
        jmp     .wait
.done:
        mov     esi, text_ticks
        call    put_string
        mov     al, [ticks]
        add     al, '0'
        call    put_byte
        jmp     put_line_end

; The way back from an interrupt, in place of IRET: a KVM that interprets code without paging may not
; know that in protected mode. All that is ever interrupted is the wait above, which keeps nothing in
; registers or flags.
%macro return_from_interrupt 0
        pop     eax                     ; where it goes on
        pop     edx                     ; the code segment: the one we are in
        pop     edx                     ; the flags
        push    eax
        sti                             ; takes effect after the ret, so the stack does not grow
        ret
%endmacro

; The third tick masks the timer here, not after the wait: however late the host lets us run, the
; count printed is the same on every hypervisor.
timer_interrupt:
        inc     dword [ticks]
        cmp     dword [ticks], TICKS_WANTED
        jb      .acknowledge
        mov     al, 0xFF
        out     PIC1_DATA, al
.acknowledge:
        mov     al, PIC_EOI
        out     PIC1_COMMAND, al
        return_from_interrupt

; Input 7 fires when a request is withdrawn before it is taken; it must not be acknowledged.
spurious_interrupt:
        return_from_interrupt

; An exception, or an interrupt that is masked: something below us is wrong. Never returns, so the
; error code some exceptions push need not be told apart.
unexpected_interrupt:
        mov     esi, text_unexpected
        call    put_string
        mov     al, EXIT_UNEXPECTED
        jmp     exit

; ---------------------------------------------------------------------------------------------
; Device register in memory

touch_device:
        mov     ebx, DEVICE_REGISTER
        mov     eax, DEVICE_VALUE
        mov     [ebx], eax
        mov     ebx, [ebx]
        mov     esi, text_mmio
        call    put_string
        call    put_hex
        jmp     put_line_end

; al = the exit status. The host may stop us at the out; if it does not, we sleep for good.
exit:
        out     EXIT_PORT, al
.halt:
        cli
        hlt
        jmp     .halt

; ---------------------------------------------------------------------------------------------
; Data

text_banner:     db "Hello from a guest on Upcall", 13, 10, 0
text_prompt:     db "type a byte: ", 0
text_got:        db "got: ", 0
text_ticks:      db "ticks: ", 0
text_mmio:       db "mmio: 0x", 0
text_unexpected: db "unexpected interrupt", 13, 10, 0
text_line_end:   db 13, 10, 0
hex_digits:      db "0123456789abcdef"

align 4, db 0
ticks:           dd 0

align 8, db 0
gdt:
        dq      0
        dq      0x00CF9A000000FFFF      ; 0x08: code, base 0, limit 4 GiB, 32-bit, ring 0
        dq      0x00CF92000000FFFF      ; 0x10: data, the same
gdt_end:

; One interrupt gate; the difference of two labels is a plain number, which can be cut in halves.
%macro gate 1
        dw      (LOAD_ADDRESS + (%1 - $$)) & 0xFFFF
        dw      CODE_SELECTOR
        dw      0x8E00                  ; present, ring 0, 32-bit interrupt gate
        dw      (LOAD_ADDRESS + (%1 - $$)) >> 16
%endmacro

align 8, db 0
idt:
%rep FIRST_VECTOR
        gate    unexpected_interrupt
%endrep
        gate    timer_interrupt
%rep 6
        gate    unexpected_interrupt
%endrep
        gate    spurious_interrupt
%rep 8
        gate    unexpected_interrupt
%endrep
idt_end:

gdt_pointer:
        dw      gdt_end - gdt - 1
        dd      gdt
idt_pointer:
        dw      idt_end - idt - 1
        dd      idt
