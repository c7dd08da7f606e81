/**
 * A vCPU whose kernel is a script: each entry finishes what is open and gives the next exit. For tests of what is made
 * of exits, on any machine.
 */
import { assert } from "@effect/vitest"
import { Result } from "effect"
import * as Slot from "../../../src/domain/abi/IoRequestSlot.ts"
import { Errno } from "../../../src/domain/Errno.ts"
import { SLOT_BYTES } from "../../../src/domain/Limits.ts"
import { ExitReason, IoDirection } from "../../../src/layers/kvm/abi/ExitReason.ts"
import * as KvmRun from "../../../src/layers/kvm/abi/KvmRun.ts"
import { VcpuFile } from "../../../src/layers/kvm/VcpuFile.ts"
import { VcpuRunner } from "../../../src/layers/kvm/VcpuRunner.ts"
import { SlotWriter } from "../../../src/layers/model/SlotWriter.ts"
import type { Libc } from "../../../src/layers/native/Libc.ts"
import { localBacking } from "../../../src/services/AddressSpace.ts"

export type Exit =
  | {
    readonly _tag: "Port"
    readonly isWrite: boolean
    readonly port: number
    readonly size: number
    readonly data: Uint8Array
  }
  | { readonly _tag: "Mmio"; readonly isWrite: boolean; readonly address: number; readonly data: Uint8Array }
  | { readonly _tag: "Other"; readonly reason: number }
  | { readonly _tag: "Signal" }

/** A request as the Service VM finds it on the page. */
export interface Seen {
  readonly type: "Port" | "Mmio"
  readonly isWrite: boolean
  readonly address: number
  readonly size: number
  readonly value: bigint
}

const RUN_BYTES = 3 * 4096
const PIO_DATA = 4096

export class ScriptedVcpu {
  readonly bytes = new Uint8Array(RUN_BYTES)
  readonly seen: Array<Seen> = []
  /** What the guest got for each of its reads, once the instruction was finished. */
  readonly read: Array<Uint8Array> = []
  entries = 0
  readonly runner: VcpuRunner
  private readonly exits: Array<Exit>
  private readonly view = new DataView(this.bytes.buffer)
  private readonly page = localBacking(4096).page(0)
  private open: Exit | undefined

  /** `answer` is given at once; `undefined` leaves the request out until {@link complete}. */
  constructor(exits: ReadonlyArray<Exit>, answer: (request: Seen) => bigint | undefined) {
    this.exits = [...exits]
    const libc = { ioctl: () => this.enter() } as unknown as Libc
    const file = new VcpuFile(libc, 0, -1, { bytes: this.bytes, unmap: () => undefined })
    const requests = new SlotWriter(
      1,
      0,
      () => {
        const request = this.request()
        this.seen.push(request)
        const value = answer(request)
        if (value !== undefined) this.complete(value)
      },
      false
    )
    for (let slot = 0; slot < 16; slot++) {
      this.page.store32(slot * SLOT_BYTES + Slot.SLOT_STATE_OFFSET, Slot.SlotStateCode.Free)
    }
    requests.setPage(this.page)
    this.runner = new VcpuRunner(file, requests)
  }

  /** Answers the request that is out. */
  complete(value: bigint): void {
    this.page.store32(Slot.REQUEST_VALUE_OFFSET, Number(BigInt.asIntN(32, value)))
    this.page.store32(Slot.REQUEST_VALUE_OFFSET + 4, Number(BigInt.asIntN(32, value >> 32n)))
    this.page.store32(Slot.SLOT_STATE_OFFSET, Slot.SlotStateCode.Complete)
    this.runner.requests.isNotified = true
  }

  get slotState(): number {
    return this.page.load32(Slot.SLOT_STATE_OFFSET)
  }

  private request(): Seen {
    const word = (offset: number) => this.page.load32(offset) >>> 0
    const long = (offset: number) => BigInt(word(offset)) + (BigInt(word(offset + 4)) << 32n)
    const isWrite = word(Slot.REQUEST_DIRECTION_OFFSET) === Slot.DirectionCode.Write
    return {
      type: word(Slot.SLOT_TYPE_OFFSET) === Slot.RequestTypeCode.Mmio ? "Mmio" : "Port",
      isWrite,
      address: Number(long(Slot.REQUEST_ADDRESS_OFFSET)),
      size: word(Slot.REQUEST_SIZE_OFFSET),
      value: isWrite ? long(Slot.REQUEST_VALUE_OFFSET) : 0n
    }
  }

  private enter(): number {
    this.entries++
    const { open, view } = this
    if (open !== undefined && "isWrite" in open && !open.isWrite) {
      const at = open._tag === "Port" ? PIO_DATA : KvmRun.MMIO_DATA_OFFSET
      this.read.push(this.bytes.slice(at, at + open.data.length))
    }
    this.open = undefined
    if (this.bytes[KvmRun.IMMEDIATE_EXIT_OFFSET] === 1) return -Errno.EINTR
    const exit = this.exits.shift()
    if (exit === undefined || exit._tag === "Signal") return -Errno.EINTR
    this.open = exit
    // What the last exit left there is anybody's.
    this.bytes.fill(0xee, KvmRun.EXIT_OFFSET, KvmRun.EXIT_OFFSET + 64)
    switch (exit._tag) {
      case "Port":
        view.setUint32(KvmRun.EXIT_REASON_OFFSET, ExitReason.IO, true)
        view.setUint8(KvmRun.IO_DIRECTION_OFFSET, exit.isWrite ? IoDirection.OUT : IoDirection.IN)
        view.setUint8(KvmRun.IO_SIZE_OFFSET, exit.size)
        view.setUint16(KvmRun.IO_PORT_OFFSET, exit.port, true)
        view.setUint32(KvmRun.IO_COUNT_OFFSET, exit.data.length / exit.size, true)
        view.setBigUint64(KvmRun.IO_DATA_OFFSET_OFFSET, BigInt(PIO_DATA), true)
        this.bytes.set(exit.data, PIO_DATA)
        return 0
      case "Mmio":
        view.setUint32(KvmRun.EXIT_REASON_OFFSET, ExitReason.MMIO, true)
        this.bytes.set(
          Result.getOrThrow(KvmRun.MmioExit.encode({
            physAddr: BigInt(exit.address),
            data: Uint8Array.from({ length: 8 }, (_, index) => exit.data[index] ?? 0xee),
            len: exit.data.length,
            isWrite: exit.isWrite ? 1 : 0
          })),
          KvmRun.EXIT_OFFSET
        )
        return 0
      case "Other":
        view.setUint32(KvmRun.EXIT_REASON_OFFSET, exit.reason, true)
        return 0
    }
  }
}

/** Runs to where nothing more comes, answering what is left out by `later`. */
export const runToEnd = (vcpu: ScriptedVcpu, later: () => bigint): void => {
  for (let steps = 0; steps < 10_000; steps++) {
    const stop = vcpu.runner.run(8)
    if (stop === "Waiting") vcpu.complete(later())
    else if (stop !== "Exhausted") return
  }
  assert.fail("the vCPU never ends")
}
