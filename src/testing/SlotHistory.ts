/**
 * What happened on I/O request pages, as the Service VM saw it: each step of each slot, who took it, and each request
 * that was read. It watches from the Service VM's side, so it needs nothing from the hypervisor and sits over any
 * layer.
 *
 * What a hypervisor does between two looks of the Service VM is one step here: a slot that was Complete and shows
 * Pending at the next look went through Free.
 *
 * **Example** (The slot of a guest's access)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Result from "effect/Result"
 * import * as MmioScratch from "upcall/layers/devices/MmioScratch"
 * import * as Simulated from "upcall/layers/Simulated"
 * import { ServiceMemory } from "upcall/services/ServiceMemory"
 * import * as VirtualMachine from "upcall/services/VirtualMachine"
 * import * as GuestProgram from "upcall/testing/GuestProgram"
 * import * as GuestRun from "upcall/testing/GuestRun"
 * import * as SlotHistory from "upcall/testing/SlotHistory"
 *
 * const guest = Result.getOrThrow(GuestProgram.assemble([
 *   { _tag: "Store", address: 0xe0000010, size: 1, value: 0x42 },
 *   { _tag: "Load", address: 0xe0000010, size: 1 }
 * ]))
 * const program = Effect.gen(function*() {
 *   const { history, memory } = SlotHistory.watch(yield* ServiceMemory)
 *   const machines = Layer.provide(VirtualMachine.layer, Layer.succeed(ServiceMemory, memory))
 *   yield* Effect.provide(GuestRun.run(guest, MmioScratch.make()), machines)
 *   console.log(SlotHistory.format(history.events()))
 *   // => page  slot  by          step
 *   // => 0     0     Hypervisor  Free -> Pending
 *   // => 0     0     Service     reads: write 1 byte 0x42 to guest address 0xe0000010 (vCPU 0)
 *   // => 0     0     Service     Pending -> Processing
 *   // => 0     0     Service     Processing -> Complete
 *   // => 0     0     Hypervisor  Complete -> Pending
 *   // => 0     0     Service     reads: read 1 byte from guest address 0xe0000010 (vCPU 0)
 *   // => 0     0     Service     Pending -> Processing
 *   // => 0     0     Service     writes 0x42 at byte 88
 *   // => 0     0     Service     Processing -> Complete
 * })
 * await Effect.runPromise(Effect.provide(program, Simulated.layer))
 * ```
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { SLOT_STATE_OFFSET, SlotStateCode, slotStateOf } from "../domain/abi/IoRequestSlot.ts"
import { hex } from "../domain/Address.ts"
import * as IoRequest from "../domain/IoRequest.ts"
import { MAX_VCPUS, SLOT_BYTES } from "../domain/Limits.ts"
import * as SlotWords from "../domain/SlotWords.ts"
import type { ServiceMemory, ServicePage } from "../services/ServiceMemory.ts"
import { withRequestPages } from "./laws/over.ts"

const slot = { page: Schema.Natural, slot: Schema.Natural }

/**
 * Pages are counted from 0 in the order in which they were given. States are codes of the page, for they need not be
 * proper ones (`SlotStateCode`); `word` is an offset in the slot, in bytes.
 *
 * - `Moved`: the state became another; the hypervisor's steps are dated to when they were seen.
 * - `Read`: the request's words were read; `request` says what they are.
 * - `Wrote`: the Service VM wrote a word that is not the state: an answer.
 *
 * @category schemas
 * @since 0.1.0
 */
export const SlotEvent = Schema.TaggedUnion({
  Moved: { ...slot, by: Schema.Literals(["Hypervisor", "Service"]), from: Schema.Int, to: Schema.Int },
  Read: { ...slot, request: Schema.String },
  Wrote: { ...slot, word: Schema.Natural, value: Schema.Int }
})

/**
 * @category models
 * @since 0.1.0
 */
export type SlotEvent = typeof SlotEvent.Type

/**
 * A history under way.
 *
 * @category models
 * @since 0.1.0
 */
export interface SlotHistory {
  /** The last 4096 events, oldest first. */
  readonly events: () => ReadonlyArray<SlotEvent>
  /** Events so far, kept or not. */
  readonly count: () => number
  /** Forgets the events, and which pages there were. */
  readonly clear: () => void
}

const KEPT_EVENTS = 4096

class Recorder implements SlotHistory {
  private kept: Array<SlotEvent> = []
  private pages = 0
  private total = 0

  readonly events = (): ReadonlyArray<SlotEvent> => this.kept.slice(-KEPT_EVENTS)

  readonly count = (): number => this.total

  readonly clear = (): void => {
    this.kept = []
    this.pages = 0
    this.total = 0
  }

  add(event: SlotEvent): void {
    this.total++
    this.kept.push(event)
    // Twice the size before it is cut, so that cutting is rare.
    if (this.kept.length === 2 * KEPT_EVENTS) this.kept = this.kept.slice(KEPT_EVENTS)
  }

  watch(page: ServicePage): ServicePage {
    const id = this.pages++
    const last: Array<number> = Array.from({ length: MAX_VCPUS }, () => SlotStateCode.Free)
    const saw = (index: number, code: number, by: "Hypervisor" | "Service"): void => {
      const from = last[index]!
      last[index] = code
      if (from !== code) this.add({ _tag: "Moved", page: id, slot: index, by, from, to: code })
    }
    return {
      load32: (offset) => {
        const value = page.load32(offset)
        if (offset % SLOT_BYTES === SLOT_STATE_OFFSET) saw(Math.floor(offset / SLOT_BYTES), value, "Hypervisor")
        return value
      },
      store32: (offset, value) => {
        const index = Math.floor(offset / SLOT_BYTES)
        const word = offset % SLOT_BYTES
        if (word === SLOT_STATE_OFFSET) saw(index, value, "Service")
        else this.add({ _tag: "Wrote", page: id, slot: index, word, value })
        page.store32(offset, value)
      },
      fetchRequest: (offset, words) => {
        page.fetchRequest(offset, words)
        const index = Math.floor(offset / SLOT_BYTES)
        const request = SlotWords.decode(words, index)
        this.add({
          _tag: "Read",
          page: id,
          slot: index,
          request: typeof request === "string" ? request : IoRequest.format(request)
        })
      },
      storeRequest: (offset, words) => page.storeRequest(offset, words)
    }
  }
}

/**
 * The same memory with its I/O request pages watched.
 *
 * @category constructors
 * @since 0.1.0
 */
export const watch = (
  memory: ServiceMemory["Service"]
): { readonly memory: ServiceMemory["Service"]; readonly history: SlotHistory } => {
  const recorder = new Recorder()
  return { history: recorder, memory: withRequestPages(memory, (page) => recorder.watch(page)) }
}

const stateName = (code: number): string => slotStateOf(code) ?? `(${code})`

/**
 * Events as a table for people, one line each, in order; the last `limit` of them (default 60).
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (events: ReadonlyArray<SlotEvent>, options: { readonly limit?: number } = {}): string => {
  const shown = events.slice(-(options.limit ?? 60))
  const rows = shown.map((event): ReadonlyArray<string> => {
    const where = [String(event.page), String(event.slot)]
    switch (event._tag) {
      case "Moved":
        return [...where, event.by, `${stateName(event.from)} -> ${stateName(event.to)}`]
      case "Read":
        return [...where, "Service", `reads: ${event.request}`]
      case "Wrote":
        return [...where, "Service", `writes ${hex(event.value >>> 0)} at byte ${event.word}`]
    }
  })
  const head = ["page", "slot", "by", "step"]
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]!.length)))
  const line = (row: ReadonlyArray<string>) =>
    row.map((cell, column) => cell.padEnd(widths[column]!)).join("  ").trimEnd()
  const omitted = events.length - shown.length
  return [
    line(head),
    ...omitted === 0 ? [] : [`(${omitted} earlier events)`],
    ...rows.map(line)
  ].join("\n")
}
