/**
 * The registers of a vCPU that could not go on, for people.
 */
import type { EndReason } from "../domain/EndReason.ts"
import { Cr0, Efer, type VcpuRegisters } from "../domain/VcpuRegisters.ts"
import * as Table from "./Table.ts"

/** Registers that have a line in common. */
const LINES: ReadonlyArray<ReadonlyArray<keyof VcpuRegisters["gprs"]>> = [
  ["rax", "rbx", "rcx", "rdx"],
  ["rsi", "rdi", "rbp", "rsp"],
  ["r8", "r9", "r10", "r11"],
  ["r12", "r13", "r14", "r15"]
]
const LINES_OF_32_BIT_CODE = 2

const modeOf = ({ cr0, ia32Efer }: VcpuRegisters): string => {
  if ((cr0 & Cr0.ProtectionEnable) === 0n) return "real mode"
  if ((ia32Efer & Efer.LongModeActive) !== 0n) return "64-bit mode"
  return (cr0 & Cr0.Paging) === 0n ? "32-bit mode without paging" : "32-bit mode with paging"
}

const FLAGS = ["cf", "", "pf", "", "af", "", "zf", "sf", "tf", "if", "df", "of"]

/** The names of the flags that are set, as far as programs use them. */
const flagsOf = (rflags: bigint): string =>
  FLAGS.filter((name, bit) => name !== "" && (rflags >> BigInt(bit) & 1n) === 1n).join(" ")

const hex = (value: bigint | number, digits: number): string => value.toString(16).padStart(digits, "0")

const left = { title: "", align: "left" } as const

/** Columns without titles. */
const columns = (rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  Table.format(Array.from({ length: Math.max(...rows.map((row) => row.length)) }, () => left), rows)
    .split("\n").slice(2).join("\n")

/** All of them. Words have 16 digits where some register needs more than 8. */
export const format = (vcpu: number, registers: VcpuRegisters): string => {
  const { cr0, cr3, cr4, csAr, csBase, csLimit, csSel, gdt, gprs, ia32Efer, idt, rflags, rip } = registers
  const mode = modeOf(registers)
  const all = [...Object.values(gprs), rip, cr0, cr3, cr4, ia32Efer, rflags, csBase, gdt.base, idt.base]
  const digits = mode === "64-bit mode" || all.some((value) => value >= 1n << 32n) ? 16 : 8
  const word = (value: bigint) => hex(value, digits)
  const table = ({ base, limit }: VcpuRegisters["gdt"]) => `${word(base)} limit ${hex(limit, 4)}`
  const selectors = (["ss", "ds", "es", "fs", "gs", "ldt", "tr"] as const).map((name) =>
    `${name} ${hex(registers[`${name}Sel`], 4)}`
  )
  return [
    `vCPU ${vcpu} in ${mode}`,
    columns([
      ...LINES.slice(0, digits === 8 ? LINES_OF_32_BIT_CODE : undefined).map((names) =>
        names.map((name) => `${name.padEnd(3)} ${word(gprs[name])}`)
      ),
      [`cr0 ${word(cr0)}`, `cr3 ${word(cr3)}`, `cr4 ${word(cr4)}`, `efer ${hex(ia32Efer, 4)}`]
    ]),
    `rip ${word(rip)}  rflags ${hex(rflags, 8)} ${flagsOf(rflags)}`.trimEnd(),
    `cs  ${hex(csSel, 4)} base ${word(csBase)} limit ${hex(csLimit, 8)} attributes ${hex(csAr, 4)}`,
    selectors.join("  "),
    `gdt ${table(gdt)}  idt ${table(idt)}`
  ].join("\n")
}

/** Those of the vCPU because of which a guest ended, where the hypervisor could tell. */
export const ofReason = (reason: EndReason): string | undefined =>
  "registers" in reason && reason.registers !== undefined ? format(reason.vcpu, reason.registers) : undefined
