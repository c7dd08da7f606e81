/**
 * What a guest asked of its devices and what it was answered, in order, as values: to be compared, printed, kept in a
 * file and, by their hash, told apart in one line.
 *
 * **Example** (Recording what a guest does)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as IoRange from "upcall/domain/IoRange"
 * import * as TestMachine from "upcall/testing/TestMachine"
 * import * as Trace from "upcall/testing/Trace"
 *
 * const program = Effect.gen(function*() {
 *   const machine = yield* TestMachine.make()
 *   yield* machine.vm.io.register({
 *     name: "seven",
 *     ranges: [IoRange.ports(0x60, 0x60)],
 *     handle: () => Effect.succeed(7)
 *   }).pipe(machine.attach)
 *   const recording = yield* Trace.record(machine.vm)
 *   yield* machine.portRead(0x60, 1)
 *   return yield* recording.trace
 * })
 * const trace = await Effect.runPromise(Effect.scoped(program))
 * console.log(trace.entries.map(Trace.format).join("; "))
 * // => seven was asked: read 1 byte from port 0x60 (vCPU 0); seven answered 0x7: read 1 byte from port 0x60 (vCPU 0)
 * console.log(trace.hash === Trace.hash(trace.entries))
 * // => true
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { type GuestAddress, hex } from "../domain/Address.ts"
import * as IoRequest from "../domain/IoRequest.ts"
import type { IoDispatcher } from "../services/IoDispatcher.ts"
import { Fnv1a64 } from "./trace/Fnv1a64.ts"

/**
 * - `Asked`: the dispatcher handed a request to a client.
 * - `Answered`: the client completed it; `answer` is what the guest read, and is not there for a write.
 *
 * With one vCPU the two alternate. A client's name in parentheses is none: nobody owned the address, or the dispatcher
 * answered by itself.
 *
 * @category schemas
 * @since 0.1.0
 */
export const TraceEntry = Schema.TaggedUnion({
  Asked: { client: Schema.String, request: IoRequest.IoRequest },
  Answered: {
    client: Schema.String,
    request: IoRequest.IoRequest,
    answer: Schema.optionalKey(Schema.Union([IoRequest.U32, IoRequest.U64]))
  }
})

/**
 * @category models
 * @since 0.1.0
 */
export type TraceEntry = typeof TraceEntry.Type

/**
 * A recording so far. `hash` is 16 hexadecimal digits and covers every entry, kept or not.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Trace = Schema.Struct({ entries: Schema.Array(TraceEntry), hash: Schema.String })

/**
 * @category models
 * @since 0.1.0
 */
export type Trace = typeof Trace.Type

/**
 * A recording under way.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recording {
  readonly trace: Effect.Effect<Trace>
  readonly hash: Effect.Effect<string>
}

// An observer is told what the guest reads: cut to the access, and nothing for a write.
const answered = (client: string, request: IoRequest.IoRequest, answer: IoRequest.IoValue): TraceEntry =>
  answer === undefined
    ? { _tag: "Answered", client, request }
    : { _tag: "Answered", client, request, answer }

/**
 * Records a VM's requests and answers until the scope closes. `keep`: how many entries are kept, the first ones
 * (default: all; a booting Linux makes some 100,000). The hash costs about a tenth of a microsecond an entry.
 *
 * @category constructors
 * @since 0.1.0
 */
export const record = (
  vm: { readonly io: IoDispatcher["Service"] },
  options: { readonly keep?: number | undefined } = {}
): Effect.Effect<Recording, never, Scope.Scope> =>
  Effect.suspend(() => {
    const { keep = Infinity } = options
    const entries: Array<TraceEntry> = []
    const hashing = new Fnv1a64()
    const add = (entry: TraceEntry) => {
      feed(hashing, entry)
      if (entries.length < keep) entries.push(entry)
    }
    const observing = vm.io.observe({
      onRequest: (client, request) => add({ _tag: "Asked", client, request }),
      onComplete: (client, request, value) => add(answered(client, request, value))
    })
    return Effect.as(observing, {
      trace: Effect.sync(() => ({ entries: [...entries], hash: hashing.toString() })),
      hash: Effect.sync(() => hashing.toString())
    })
  })

const KINDS = ["PortRead", "PortWrite", "MmioRead", "MmioWrite", "PciRead", "PciWrite"] as const

const feed = (hashing: Fnv1a64, entry: TraceEntry): void => {
  const { client, request } = entry
  hashing.byte(entry._tag === "Asked" ? 0 : 1)
  hashing.text(client)
  hashing.byte(KINDS.indexOf(request._tag))
  hashing.byte(request.vcpu)
  hashing.byte(request.size)
  switch (request._tag) {
    case "PortRead":
    case "PortWrite":
      hashing.number(request.port)
      break
    case "MmioRead":
    case "MmioWrite":
      hashing.number(request.address)
      break
    case "PciRead":
    case "PciWrite":
      hashing.byte(request.bus)
      hashing.byte(request.device)
      hashing.byte(request.function)
      hashing.number(request.register)
      break
  }
  if ("value" in request) hashing.bigint(BigInt(request.value))
  if (entry._tag === "Answered" && entry.answer !== undefined) hashing.bigint(BigInt(entry.answer))
}

/**
 * The hash of entries: equal entries give equal hashes on every machine and in every version 0.1.x.
 *
 * @category hashing
 * @since 0.1.0
 */
export const hash = (entries: Iterable<TraceEntry>): string => {
  const hashing = new Fnv1a64()
  for (const entry of entries) feed(hashing, entry)
  return hashing.toString()
}

/**
 * The same trace with every MMIO access as accesses of one byte, lowest address first. Layers that split wide accesses
 * in different ways have this in common.
 *
 * @category mapping
 * @since 0.1.0
 */
export const inBytes = (entries: Iterable<TraceEntry>): Array<TraceEntry> => {
  const split: Array<TraceEntry> = []
  for (const entry of entries) {
    const { request } = entry
    if (request._tag !== "MmioRead" && request._tag !== "MmioWrite") {
      split.push(entry)
      continue
    }
    // Asked and answered alternate byte by byte, as if each byte had been an access.
    if (entry._tag === "Asked") continue
    for (let i = 0; i < request.size; i++) {
      const address = (request.address + i) as GuestAddress
      const byteOf = (word: number | bigint) => BigInt(word) >> BigInt(8 * i) & 0xffn
      const { client } = entry
      if (request._tag === "MmioWrite") {
        const byte = { ...request, address, size: 1, value: byteOf(request.value) } as const
        split.push({ _tag: "Asked", client, request: byte }, { _tag: "Answered", client, request: byte })
      } else {
        const byte = { ...request, address, size: 1 } as const
        const answer = byteOf(entry.answer ?? 0n)
        split.push({ _tag: "Asked", client, request: byte }, { _tag: "Answered", client, request: byte, answer })
      }
    }
  }
  return split
}

/**
 * Where two traces part: the index of the first entry that is not the same in both, `undefined` when all are.
 *
 * @category comparing
 * @since 0.1.0
 */
export const firstDifference = (
  a: ReadonlyArray<TraceEntry>,
  b: ReadonlyArray<TraceEntry>
): number | undefined => {
  for (let index = 0; index < Math.max(a.length, b.length); index++) {
    const [left, right] = [a[index], b[index]]
    if (left === undefined || right === undefined || hash([left]) !== hash([right])) return index
  }
  return undefined
}

/**
 * An entry as people read it: `uart0 answered 0x60: read 1 byte from port 0x3fd (vCPU 0)`.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (entry: TraceEntry): string => {
  const request = IoRequest.format(entry.request)
  if (entry._tag === "Asked") return `${entry.client} was asked: ${request}`
  return `${entry.client} answered${entry.answer === undefined ? "" : ` ${hex(entry.answer)}`}: ${request}`
}
