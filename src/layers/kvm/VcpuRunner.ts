/**
 * Runs one vCPU on the thread that calls it, and makes requests of its accesses to ports and MMIO.
 *
 * An exit carries an access as the instruction has it; a request is of 1, 2, 4 or 8 bytes. So a string instruction is a
 * request per element, and what the kernel cut at the end of a page (3 bytes) is cut once more.
 *
 * An access stays open in the kernel until the vCPU is entered again, which also finishes its instruction.
 */
import * as Slot from "../../domain/abi/IoRequestSlot.ts"
import { Errno } from "../../domain/Errno.ts"
import { PORT_SPACE_END } from "../../domain/Limits.ts"
import type { SlotWriter } from "../model/SlotWriter.ts"
import { ExitReason, IoDirection } from "./abi/ExitReason.ts"
import * as KvmRun from "./abi/KvmRun.ts"
import type { VcpuFile } from "./VcpuFile.ts"

const EXIT_REASON = KvmRun.EXIT_REASON_OFFSET / 4
const IO_PORT = KvmRun.IO_PORT_OFFSET / 2
const IO_COUNT = KvmRun.IO_COUNT_OFFSET / 4
const IO_DATA_OFFSET = KvmRun.IO_DATA_OFFSET_OFFSET / 4
const MMIO_ADDRESS = KvmRun.MMIO_ADDRESS_OFFSET / 4
const MMIO_LENGTH = KvmRun.MMIO_LENGTH_OFFSET / 4

// What a `rep` instruction has done when its vCPU is stopped for good may be long; the rest of it is nobody's business.
const MOST_STEPS_TO_SETTLE = 4096

/**
 * - `Interrupted`: something wanted the thread back.
 * - `Waiting`: a request is out that is not answered yet.
 * - `Halted`: HLT, where the kernel has no interrupt controller that could wake it.
 * - `Exhausted`: as many exits as were allowed.
 * - `Failed`: KVM_RUN failed with {@link VcpuRunner.failure}.
 * - `Exited`: any other exit, which stands in `struct kvm_run`.
 */
export type Stop = "Interrupted" | "Waiting" | "Halted" | "Exhausted" | "Failed" | "Exited"

export class VcpuRunner {
  readonly file: VcpuFile
  readonly requests: SlotWriter
  /** The negative errno of a KVM_RUN that failed. */
  failure = 0

  private type = 0
  private direction = 0
  private address = 0
  /** Bytes of an element of a string instruction; 0 for MMIO, which is cut as it comes. */
  private unit = 0
  /** Where the data is that is next, and where it ends, in `struct kvm_run`. */
  private at = 0
  private end = 0
  private pieceBytes = 0
  /** The kernel has an access open that the vCPU has not gone on from. */
  private isOpen = false
  /** The answer that is out is for an instruction that is no more. */
  private isUnwanted = false

  constructor(file: VcpuFile, requests: SlotWriter) {
    this.file = file
    this.requests = requests
  }

  /** Whether the vCPU stands inside an instruction that waits for an answer. */
  get isInside(): boolean {
    return !this.isUnwanted && (this.requests.isWaiting || this.at < this.end)
  }

  /** Runs until something other than an access that is answered at once. */
  run(exits: number): Stop {
    if (!this.canEnter()) return "Waiting"
    for (let left = exits; left > 0; left--) {
      const stop = this.entered(this.file.enter())
      if (stop !== undefined) return stop
      if (!this.canEnter()) return "Waiting"
    }
    return "Exhausted"
  }

  /** Makes requests of what is left of the access; true when all of it is answered, and the vCPU may be entered. */
  canEnter(): boolean {
    const { requests } = this
    if (requests.isWaiting) {
      if (!requests.isAnswered()) return false
      const value = requests.take()
      if (this.isUnwanted) this.isUnwanted = false
      else this.finishPiece(value)
    }
    while (this.at < this.end) {
      if (!this.sendPiece()) return false
    }
    return true
  }

  /** The vCPU was entered, with this result: what stopped it, unless it is an access. */
  entered(result: number): Stop | undefined {
    this.isOpen = false
    if (result >= 0) return this.takeExit()
    if (result === -Errno.EINTR || result === -Errno.EAGAIN) return "Interrupted"
    this.failure = result
    return "Failed"
  }

  /** Whether the vCPU was answered, and has but to be entered to finish its instruction. */
  canFinish(): boolean {
    return (!this.isInside || this.canEnter()) && this.isOpen
  }

  /**
   * Lets the vCPU finish the instruction whose access was answered, so that its registers are true. False when it
   * stands inside the instruction still.
   */
  settle(): boolean {
    if (this.isInside && !this.canEnter()) return false
    while (this.isOpen) {
      if (!this.finishInstruction()) return true
      if (this.at < this.end) return false
    }
    return true
  }

  /** Ends the instruction that waits for an answer, with any: the registers that come next know nothing of it. */
  discard(): void {
    if (this.isInside) {
      this.isUnwanted = this.requests.isWaiting
      this.at = this.end
    }
    for (let steps = 0; this.isOpen && steps < MOST_STEPS_TO_SETTLE; steps++) {
      this.finishInstruction()
      this.at = this.end
    }
  }

  /** The slots were cleared: whatever was out is forgotten. */
  abandon(): void {
    this.requests.abandon()
    this.discard()
    this.isUnwanted = false
  }

  /** Enters only to finish what is open; false when nothing more came of it. */
  private finishInstruction(): boolean {
    const { file } = this
    file.setImmediateExit(true)
    const result = file.enter()
    file.setImmediateExit(false)
    return this.entered(result) === undefined
  }

  /** What the exit is if it is no access. */
  private takeExit(): Stop | undefined {
    const { bytes, halves, words } = this.file
    switch (words[EXIT_REASON]) {
      case ExitReason.IO:
        this.type = Slot.RequestTypeCode.PortIo
        this.direction = bytes[KvmRun.IO_DIRECTION_OFFSET] === IoDirection.OUT
          ? Slot.DirectionCode.Write
          : Slot.DirectionCode.Read
        this.address = halves[IO_PORT]!
        this.unit = bytes[KvmRun.IO_SIZE_OFFSET]!
        this.at = words[IO_DATA_OFFSET]!
        this.end = this.at + this.unit * words[IO_COUNT]!
        this.isOpen = true
        return undefined
      case ExitReason.MMIO:
        this.type = Slot.RequestTypeCode.Mmio
        this.direction = bytes[KvmRun.MMIO_IS_WRITE_OFFSET] === 0 ? Slot.DirectionCode.Read : Slot.DirectionCode.Write
        this.address = words[MMIO_ADDRESS]! + words[MMIO_ADDRESS + 1]! * 2 ** 32
        this.unit = 0
        this.at = KvmRun.MMIO_DATA_OFFSET
        this.end = KvmRun.MMIO_DATA_OFFSET + words[MMIO_LENGTH]!
        this.isOpen = true
        return undefined
      case ExitReason.HLT:
        return "Halted"
      case ExitReason.INTR:
        return "Interrupted"
      // Without an interrupt controller the kernel tells of the priority that the guest sets; no interrupt waits for it.
      case ExitReason.SET_TPR:
        return undefined
      default:
        return "Exited"
    }
  }

  private sendPiece(): boolean {
    const { address, direction } = this
    const bytes = this.unit === 0 ? largestPiece(this.end - this.at) : this.unit
    this.pieceBytes = bytes
    // A port's bytes beyond 0xFFFF do not exist; the page has no room for them.
    if (this.unit > 0 && address + bytes > PORT_SPACE_END) {
      this.finishPiece(0xffff_ffff)
      return true
    }
    const isWrite = direction === Slot.DirectionCode.Write
    const value = isWrite ? this.load(bytes) : 0
    const high = isWrite && bytes === 8 ? this.file.words[this.at / 4 + 1]! : 0
    if (!this.requests.submit(this.type, direction, address, bytes, value, high)) return false
    this.finishPiece(this.requests.take())
    return true
  }

  private finishPiece(value: number): void {
    const bytes = this.pieceBytes
    if (this.direction === Slot.DirectionCode.Read) this.store(bytes, value)
    this.at += bytes
    if (this.unit === 0) this.address += bytes
  }

  // Pieces are of falling sizes and begin at a multiple of 8, so each lies at a multiple of its own size.
  private load(bytes: number): number {
    const { at, file } = this
    if (bytes === 1) return file.bytes[at]!
    return bytes === 2 ? file.halves[at / 2]! : file.words[at / 4]! | 0
  }

  private store(bytes: number, value: number): void {
    const { at, file } = this
    if (bytes === 1) file.bytes[at] = value
    else if (bytes === 2) file.halves[at / 2] = value
    else {
      file.words[at / 4] = value
      if (bytes === 8) file.words[at / 4 + 1] = this.requests.answerHigh
    }
  }
}

const largestPiece = (bytes: number): number => bytes >= 8 ? 8 : bytes >= 4 ? 4 : bytes >= 2 ? 2 : 1
