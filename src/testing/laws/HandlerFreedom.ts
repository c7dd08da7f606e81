/**
 * Law 13: handlers that change who owns what while they hold a request. Each request that reaches a client makes its
 * handler do the next thing of a list; a table of who owns what is kept beside it, in plain loops, and tells what each
 * of these things must come to and who gets the next request.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as IoRange from "../../domain/IoRange.ts"
import type { IoClient, IoDispatcherError } from "../../services/IoDispatcher.ts"
import { VirtualMachine } from "../../services/VirtualMachine.ts"
import type { RunningVm } from "../../services/Vm.ts"
import * as Generator from "../Generator.ts"
import * as GuestProgram from "../GuestProgram.ts"
import * as GuestRun from "../GuestRun.ts"
import * as Law from "../Law.ts"

interface Access {
  readonly port: number
  readonly size: 1 | 2 | 4
}

interface Span {
  readonly start: number
  readonly end: number
}

/**
 * What a handler does. `of` is a client: 0 the one that was asked, others count on from it.
 *
 * - `Add`, `Remove`, `Move`: ranges; `nth` counts those that the client has.
 * - `Close`: ends a client's scope. `Attach`: a device with a client of its own.
 * - `Memory`: reads and writes RAM, and what is no RAM but the client's own ports' addresses as memory.
 * - `Pause`: tries to pause the VM, which waits for this very handler, and so must come to its deadline.
 */
type Act =
  | { readonly _tag: "Nothing" }
  | { readonly _tag: "Add"; readonly of: number; readonly span: Span }
  | { readonly _tag: "Remove"; readonly of: number; readonly nth: number }
  | { readonly _tag: "Move"; readonly of: number; readonly nth: number; readonly span: Span }
  | { readonly _tag: "Close"; readonly of: number }
  | { readonly _tag: "Attach"; readonly span: Span }
  | { readonly _tag: "Memory" }
  | { readonly _tag: "Pause" }

/** `waits`: before it acts a handler answers from a fiber that has waited. */
interface Case {
  readonly clients: ReadonlyArray<ReadonlyArray<Span>>
  readonly accesses: ReadonlyArray<Access>
  readonly acts: ReadonlyArray<{ readonly act: Act; readonly waits: "NotAtAll" | "ATurn" | "GuestTime" }>
}

const WINDOW = { start: 0x300, end: 0x30f }
const MMIO = 0xe000_0000
const PAUSE_DEADLINE = "2 micros"
const NOBODY = "(nobody)"

interface Owned {
  readonly client: string
  readonly span: Span
}

/** Who owns which ports. Every question is answered by looking at all of it. */
class Table {
  private owned: ReadonlyArray<Owned> = []
  private readonly closed = new Set<string>()

  of(client: string): ReadonlyArray<Span> {
    return this.owned.filter((each) => each.client === client).map(({ span }) => span)
  }

  isClosed(client: string): boolean {
    return this.closed.has(client)
  }

  /** The reason of the refusal, or undefined when the client then owns them. */
  add(client: string, spans: ReadonlyArray<Span>): string | undefined {
    if (this.isClosed(client)) return "Closed"
    const all = [...this.owned]
    for (const span of spans) {
      if (all.some((each) => span.start <= each.span.end && each.span.start <= span.end)) return "Overlap"
      all.push({ client, span })
    }
    this.owned = all
    return undefined
  }

  remove(client: string, span: Span): string | undefined {
    if (this.isClosed(client)) return "Closed"
    const rest = this.owned.filter((each) => each.client !== client || !isSame(each.span, span))
    if (rest.length === this.owned.length) return "NoSuchRange"
    this.owned = rest
    return undefined
  }

  move(client: string, from: Span, to: Span): string | undefined {
    const before = this.owned
    const refusal = this.remove(client, from) ?? this.add(client, [to])
    if (refusal !== undefined) this.owned = before
    return refusal
  }

  close(client: string): void {
    this.closed.add(client)
    this.owned = this.owned.filter((each) => each.client !== client)
  }

  ownerOf({ port, size }: Access): string {
    const owner = this.owned.find(({ span }) => span.start <= port && port + size - 1 <= span.end)
    return owner?.client ?? NOBODY
  }
}

const isSame = (a: Span, b: Span): boolean => a.start === b.start && a.end === b.end

const ports = ({ end, start }: Span): IoRange.IoRange => IoRange.ports(start, end)

interface Member {
  readonly name: string
  readonly client: IoClient
  readonly scope: Scope.Closeable
}

const holds = ({ accesses, acts, clients }: Case) =>
  Effect.gen(function*() {
    const operations = accesses.flatMap((access): Array<GuestProgram.OperationInput> => [
      { _tag: "PortIn", ...access },
      { _tag: "Keep" }
    ])
    const program = Result.getOrThrow(GuestProgram.assembleAll([operations]))
    const machines = yield* VirtualMachine
    const vm = yield* machines.create({ memoryBytes: program.plan.memoryBytes })
    const table = new Table()
    const members: Array<Member> = []
    const problems: Array<string> = []
    const queue = [...acts]
    let asked = 0

    /** Does something that must be refused with this reason, or be done. */
    const attempt = <E extends { readonly reason: { readonly _tag: string } }>(
      what: string,
      effect: Effect.Effect<unknown, E>,
      expected: string | undefined
    ) =>
      Effect.map(Effect.result(effect), (result) => {
        const found = Result.isFailure(result) ? result.failure.reason._tag : undefined
        if (found !== expected) problems.push(`${what} came to ${found ?? "success"}, not to ${expected ?? "success"}`)
      })

    const doIt = (act: Act, self: Member): Effect.Effect<void> => {
      const member = (of: number) => members[(members.indexOf(self) + of) % members.length]!
      switch (act._tag) {
        case "Nothing":
          return Effect.void
        case "Add": {
          const { client, name } = member(act.of)
          return attempt(`adding to ${name}`, client.addRange(ports(act.span)), table.add(name, [act.span]))
        }
        case "Remove": {
          const { client, name } = member(act.of)
          const span = table.of(name)[act.nth] ?? WINDOW
          return attempt(`removing from ${name}`, client.removeRange(ports(span)), table.remove(name, span))
        }
        case "Move": {
          const { client, name } = member(act.of)
          const span = table.of(name)[act.nth] ?? WINDOW
          return attempt(
            `moving of ${name}`,
            client.moveRange(ports(span), ports(act.span)),
            table.move(name, span, act.span)
          )
        }
        case "Close": {
          const { name, scope } = member(act.of)
          table.close(name)
          return Scope.close(scope, Exit.void)
        }
        case "Attach": {
          const name = `device ${members.length}`
          return attempt(`attaching ${name}`, join(name, [act.span]), table.add(name, [act.span]))
        }
        case "Memory":
          return Effect.gen(function*() {
            yield* attempt("reading RAM", vm.memory.read(0, 16), undefined)
            yield* attempt("writing RAM", vm.memory.write(0, new Uint8Array(16)), undefined)
            yield* attempt("writing its own MMIO", vm.memory.write(MMIO, new Uint8Array(4)), "OutsideRam")
          })
        case "Pause":
          return attempt("pausing from a handler", running.pauseWithin(PAUSE_DEADLINE), "NotDrained")
      }
    }

    const handle = (name: string) => () =>
      Effect.gen(function*() {
        const self = members.find((member) => member.name === name)!
        const answer = ++asked
        const next = queue.shift()
        if (next?.waits === "ATurn") yield* Effect.yieldNow
        if (next?.waits === "GuestTime") yield* Effect.sleep("1 micros")
        if (next !== undefined) yield* doIt(next.act, self)
        return answer
      })

    const join = (name: string, spans: ReadonlyArray<Span>): Effect.Effect<void, IoDispatcherError> =>
      vm.attach(Effect.gen(function*() {
        const scope = yield* Scope.fork(yield* Effect.scope)
        const client = yield* Scope.provide(
          vm.io.register({ name, ranges: spans.map(ports), handle: handle(name) }),
          scope
        )
        members.push({ name, client, scope })
      }))

    for (const [index, spans] of clients.entries()) {
      const name = `client ${index}`
      yield* attempt(`registering ${name}`, join(name, spans), table.add(name, spans))
    }

    const expected: Array<number> = []
    let accumulator = 0
    yield* vm.io.observe({
      onRequest: (client) => {
        const owner = table.ownerOf(accesses[expected.length]!)
        if (client !== owner) problems.push(`access ${expected.length + 1} went to ${client}, not to ${owner}`)
      },
      onComplete: (client, request, value) => {
        const isAnswered = client !== NOBODY && !table.isClosed(client)
        const mask = 2 ** (8 * request.size) - 1
        const answer = isAnswered ? asked : mask
        if (value !== answer) {
          problems.push(`access ${expected.length + 1} was answered ${String(value)}, not ${answer}`)
        }
        accumulator = accumulator - accumulator % (mask + 1) + answer
        expected.push(accumulator)
      }
    })

    yield* GuestRun.load(vm, program)
    const running: RunningVm = yield* vm.start
    const end = yield* running.ended
    if (end._tag !== "Halted") problems.push(`the guest's end was ${end._tag}`)
    const kept = new Uint8Array(yield* GuestProgram.results(program.vcpus[0], vm.memory))
    const found = new Uint32Array(kept.buffer)
    if (expected.length !== accesses.length || found.join() !== expected.join()) {
      problems.push(`the guest read [${found.join(", ")}], not [${expected.join(", ")}]`)
    }
    const [problem] = problems
    if (problem !== undefined) return yield* Law.broken(problem)
  })

const span: Generator.Generator<Span> = Generator.map(
  Generator.all([Generator.integer(WINDOW.start, WINDOW.end), Generator.integer(0, 3)]),
  ([start, more]) => ({ start, end: start + more })
)

const of = Generator.integer(0, 2)
const nth = Generator.integer(0, 2)

const act: Generator.Generator<Act> = Generator.oneOf<Act>(
  Generator.constant({ _tag: "Nothing" }),
  Generator.map(Generator.all({ of, span }), (chosen): Act => ({ _tag: "Add", ...chosen })),
  Generator.map(Generator.all({ of, nth }), (chosen): Act => ({ _tag: "Remove", ...chosen })),
  Generator.map(Generator.all({ of, nth, span }), (chosen): Act => ({ _tag: "Move", ...chosen })),
  Generator.map(Generator.all({ of, nth, span }), (chosen): Act => ({ _tag: "Move", ...chosen })),
  Generator.map(span, (chosen): Act => ({ _tag: "Attach", span: chosen })),
  Generator.map(of, (chosen): Act => ({ _tag: "Close", of: chosen })),
  Generator.constant({ _tag: "Memory" }),
  Generator.constant({ _tag: "Pause" })
)

const showSpan = ({ end, start }: Span): string => IoRange.format(IoRange.ports(start, end))

const showAct = (value: Act): string => {
  const whose = "of" in value ? value.of === 0 ? "its own" : `client ${value.of} on` : ""
  switch (value._tag) {
    case "Nothing":
      return "nothing"
    case "Add":
      return `add ${showSpan(value.span)} to ${whose}`
    case "Remove":
      return `remove range ${value.nth} of ${whose}`
    case "Move":
      return `move range ${value.nth} of ${whose} to ${showSpan(value.span)}`
    case "Close":
      return `close ${whose}`
    case "Attach":
      return `attach a device with ${showSpan(value.span)}`
    case "Memory":
      return "read and write guest memory, and its own MMIO as if it were memory"
    case "Pause":
      return "try to pause the VM"
  }
}

export const handlerFreedom = Law.make<Case>({
  number: 13,
  title: "a handler may change ranges, clients and memory, or touch its own MMIO, and what comes after goes by that",
  cases: () =>
    Generator.all({
      clients: Generator.array(Generator.array(span, { maxLength: 2 }), { minLength: 1, maxLength: 3 }),
      accesses: Generator.array(
        Generator.all({
          port: Generator.integer(WINDOW.start, WINDOW.end),
          size: Generator.elementOf([1, 2, 4] as const)
        }),
        { maxLength: 24 }
      ),
      acts: Generator.array(
        Generator.all({ act, waits: Generator.elementOf(["NotAtAll", "ATurn", "GuestTime"] as const) }),
        { maxLength: 24 }
      )
    }),
  show: ({ accesses, acts, clients }) =>
    [
      ...clients.map((spans, index) => `client ${index}: ${spans.map(showSpan).join(", ")}`),
      ...accesses.map(({ port, size }, index) => `access ${index + 1}: ${size} bytes from port 0x${port.toString(16)}`),
      ...acts.map(({ act: next, waits }, index) => `handler call ${index + 1} (waits: ${waits}): ${showAct(next)}`)
    ].join("\n"),
  holds
})
