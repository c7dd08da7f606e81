/**
 * The guest's accesses to ports and to memory outside RAM, as the core makes them.
 *
 * @since 0.1.0
 */
import { hex } from "../../domain/Address.ts"
import type { AccessName } from "./SuspendingShim.ts"
import type { WasmFunction } from "./WebAssemblyApi.ts"

/**
 * What stands outside the CPU. An answer that is there at once is returned as a number and costs nothing extra; for any
 * other a promise is returned, and the CPU waits inside the instruction until it settles. A handler never throws and
 * its promise never rejects: that ends the CPU. Only the low `size` bytes of an answer count.
 *
 * Which accesses come here, and how:
 *
 * - Byte-wide ports 0x20, 0x21, 0xA0, 0xA1, 0x4D0 and 0x4D1 are the core's own interrupt controllers.
 * - MMIO is 0xA0000 to 0xBFFFF and everything from the end of RAM on, save the core's own 0xFEC00000 and 0xFEE00000.
 * - An MMIO read of 2 bytes arrives as two reads of 1 byte, one of 8 or 16 bytes as reads of 4 bytes, lowest address
 *   first. An MMIO write of 8 or 16 bytes arrives as writes of 4 bytes. Ports and writes of 2 bytes arrive as they are.
 *
 * @category models
 * @since 0.1.0
 */
export interface Devices {
  readonly onPortRead: (port: number, size: 1 | 2 | 4) => number | Promise<number>
  readonly onPortWrite: (port: number, size: 1 | 2 | 4, value: number) => void | Promise<void>
  readonly onMmioRead: (address: number, size: 1 | 4) => number | Promise<number>
  readonly onMmioWrite: (address: number, size: 1 | 2 | 4, value: number) => void | Promise<void>
}

/**
 * Joins devices to the core's imports. `suspend` has the core wait for a promise. `fail` is given what a handler threw
 * and its name; what it returns is thrown through the core. `resumed` is called before the core goes on after it
 * waited, and may throw.
 *
 * @category constructors
 * @since 0.1.0
 */
export const deviceAccess = (
  devices: Devices,
  suspend: (promise: Promise<number>) => number,
  fail: (during: string, defect: unknown) => unknown,
  resumed: () => void
): Readonly<Record<AccessName, WasmFunction>> => {
  const { onMmioRead, onMmioWrite, onPortRead, onPortWrite } = devices

  const wait = (promise: Promise<number | void>, mask: number, name: string, place: number): number =>
    suspend(promise.then(
      (value) => {
        resumed()
        return (value ?? 0) & mask
      },
      (defect: unknown) => {
        throw fail(`${name} at ${hex(place)}`, defect)
      }
    ))

  const readPort = (size: 1 | 2 | 4, mask: number) => (port: number): number => {
    let answer
    try {
      answer = onPortRead(port, size)
    } catch (defect) {
      throw fail(`onPortRead at ${hex(port)}`, defect)
    }
    return typeof answer === "number" ? answer & mask : wait(answer, mask, "onPortRead", port)
  }

  const writePort = (size: 1 | 2 | 4, mask: number) => (port: number, value: number): number => {
    let answer
    try {
      answer = onPortWrite(port, size, (value & mask) >>> 0)
    } catch (defect) {
      throw fail(`onPortWrite at ${hex(port)}`, defect)
    }
    return answer === undefined ? 0 : wait(answer, 0, "onPortWrite", port)
  }

  const readMemory = (size: 1 | 4, mask: number) => (signed: number): number => {
    const address = signed >>> 0
    let answer
    try {
      answer = onMmioRead(address, size)
    } catch (defect) {
      throw fail(`onMmioRead at ${hex(address)}`, defect)
    }
    return typeof answer === "number" ? answer & mask : wait(answer, mask, "onMmioRead", address)
  }

  const writeMemory = (size: 1 | 2 | 4, mask: number) => (signed: number, value: number): number => {
    const address = signed >>> 0
    let answer
    try {
      answer = onMmioWrite(address, size, (value & mask) >>> 0)
    } catch (defect) {
      throw fail(`onMmioWrite at ${hex(address)}`, defect)
    }
    return answer === undefined ? 0 : wait(answer, 0, "onMmioWrite", address)
  }

  // Words that one instruction writes go out one after the other, also when the first has to wait.
  const writeWords = (signed: number, ...words: ReadonlyArray<number>): number => {
    const address = signed >>> 0
    const from = (first: number): void | Promise<void> => {
      for (let index = first; index < words.length; index++) {
        const answer = onMmioWrite(address + 4 * index, 4, (words[index] ?? 0) >>> 0)
        if (answer !== undefined) {
          return answer.then(() => from(index + 1))
        }
      }
      return undefined
    }
    let answer
    try {
      answer = from(0)
    } catch (defect) {
      throw fail(`onMmioWrite at ${hex(address)}`, defect)
    }
    return answer === undefined ? 0 : wait(answer, 0, "onMmioWrite", address)
  }

  return {
    io_port_read8: readPort(1, 0xff),
    io_port_read16: readPort(2, 0xffff),
    io_port_read32: readPort(4, -1),
    io_port_write8: writePort(1, 0xff),
    io_port_write16: writePort(2, 0xffff),
    io_port_write32: writePort(4, -1),
    mmap_read8: readMemory(1, 0xff),
    mmap_read32: readMemory(4, -1),
    mmap_write8: writeMemory(1, 0xff),
    mmap_write16: writeMemory(2, 0xffff),
    mmap_write32: writeMemory(4, -1),
    mmap_write64: writeWords,
    mmap_write128: writeWords
  }
}
