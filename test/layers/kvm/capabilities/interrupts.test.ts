/** Interrupts by message, at once and by eventfd, in a guest that halts until they come. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope, Stream } from "effect"
import { Errno } from "../../../../src/domain/Errno.ts"
import { ports } from "../../../../src/domain/IoRange.ts"
import { KvmIoctl } from "../../../../src/layers/kvm/abi/KvmIoctl.ts"
import { irqFds } from "../../../../src/layers/kvm/capabilities/messages.ts"
import type { Engine } from "../../../../src/layers/kvm/Engine.ts"
import type { Libc } from "../../../../src/layers/native/Libc.ts"
import { IrqFds, IrqLines, Msi } from "../../../../src/services/Hypervisor.ts"
import type { Vm } from "../../../../src/services/Vm.ts"
import { until } from "../../../support/machines.ts"
import {
  enableLocalApic,
  endOfMessage,
  idle,
  leavingNoFile,
  onKvm,
  outb,
  problem,
  programPic,
  realMode,
  skipped,
  sti,
  tell
} from "./guests.ts"

const READY = 0x100
const TOLD = 0x101
const LOCAL_APIC = 0xfee0_0000
const LINE = 3

/** A guest that tells of messages with these vectors and of line 3. */
const listening = (...vectors: ReadonlyArray<number>) =>
  realMode(
    [...enableLocalApic, ...programPic(0xff & ~(1 << LINE)), ...sti, ...outb(READY, 1), ...idle],
    {
      ...Object.fromEntries(vectors.map((vector) => [vector, tell(TOLD, vector, endOfMessage)])),
      [0x20 + LINE]: tell(TOLD, 0x20 + LINE, outb(0x20, 0x20))
    }
  )

/** What the guest tells, and whether it listens already. */
const hearing = (vm: Vm) =>
  Effect.gen(function*() {
    const told: Array<number> = []
    let isReady = false
    const client = yield* vm.io.register({
      name: "told",
      ranges: [ports(READY, TOLD)],
      handle: (request) =>
        Effect.sync(() => {
          if (request._tag !== "PortWrite") return 0
          if (request.port === READY) isReady = true
          else told.push(request.value)
          return undefined
        })
    })
    return { client, told, ready: until(() => isReady), heard: (count: number) => until(() => told.length >= count) }
  })

describe.skipIf(problem !== undefined)(`interrupts on KVM${skipped}`, () => {
  it.live("a message reaches a guest that halts", () =>
    Effect.gen(function*() {
      const msi = yield* Msi
      const vm = yield* listening(0x41, 0x42)
      const { heard, ready, told } = yield* hearing(vm)
      yield* vm.start
      yield* ready
      for (const [index, data] of [0x41, 0x42, 0x41].entries()) {
        assert.strictEqual(msi.inject(vm.id, { address: LOCAL_APIC, data }), 0)
        yield* heard(index + 1)
      }
      assert.deepStrictEqual(told, [0x41, 0x42, 0x41])
    }).pipe(onKvm(), leavingNoFile))

  it.live("a message that is none is refused", () =>
    Effect.gen(function*() {
      const msi = yield* Msi
      const vm = yield* listening()
      assert.strictEqual(msi.inject(99, { address: LOCAL_APIC, data: 0x41 }), -Errno.ENODEV)
      for (
        const message of [
          { address: 0x1000, data: 0x41 },
          { address: 0xfed0_0000, data: 0x41 },
          { address: -1, data: 0x41 },
          { address: 0.5 + LOCAL_APIC, data: 0x41 },
          { address: LOCAL_APIC, data: 2 ** 32 },
          { address: LOCAL_APIC, data: -1 },
          { address: LOCAL_APIC, data: NaN }
        ]
      ) {
        assert.strictEqual(msi.inject(vm.id, message), -Errno.EINVAL, JSON.stringify(message))
      }
      // There is no vCPU 7 to take it: it is lost, as on a board.
      assert.strictEqual(msi.inject(vm.id, { address: LOCAL_APIC + (7 << 12), data: 0x41 }), 0)
    }).pipe(onKvm()))

  it.live("without interrupt controllers both are refused", () =>
    Effect.gen(function*() {
      const msi = yield* Msi
      const eventFds = yield* IrqFds
      const vm = yield* realMode(idle)
      assert.strictEqual(msi.inject(vm.id, { address: LOCAL_APIC, data: 0x41 }), -Errno.EINVAL)
      const refusal = yield* Effect.flip(eventFds.attach(vm.id, { address: LOCAL_APIC, data: 0x41 }))
      assert.match(refusal.message, /KVM_IRQFD of VM 1 was refused.*interruptController/)
    }).pipe(onKvm({ interruptController: "None" }), leavingNoFile))

  it.live("an eventfd raises its message, and the lines of the chips stay", () =>
    Effect.gen(function*() {
      const eventFds = yield* IrqFds
      const lines = yield* IrqLines
      const vm = yield* listening(0x41, 0x42, 0x43)
      const { heard, ready, told } = yield* hearing(vm)
      const [first, second] = yield* Effect.all(
        [0x41, 0x42].map((data) => eventFds.attach(vm.id, { address: LOCAL_APIC, data }))
      )
      yield* vm.start
      yield* ready
      assert.strictEqual(second!.raise(), 0)
      yield* heard(1)
      lines.set(vm.id, LINE, true)
      lines.set(vm.id, LINE, false)
      yield* heard(2)
      assert.strictEqual(first!.raise(), 0)
      yield* heard(3)
      // The line of one that is gone is another's.
      const gone = yield* Effect.scoped(eventFds.attach(vm.id, { address: LOCAL_APIC, data: 0x42 }))
      assert.strictEqual(gone.raise(), -Errno.EBADF)
      const third = yield* eventFds.attach(vm.id, { address: LOCAL_APIC, data: 0x43 })
      assert.strictEqual(third.raise(), 0)
      yield* heard(4)
      assert.deepStrictEqual(told, [0x42, 0x20 + LINE, 0x41, 0x43])
    }).pipe(onKvm(), leavingNoFile))

  it.live("an eventfd is refused for no VM and no message, and dead with its VM", () =>
    Effect.gen(function*() {
      const eventFds = yield* IrqFds
      const message = { address: LOCAL_APIC, data: 0x41 }
      const noVm = yield* Effect.flip(eventFds.attach(99, message))
      assert.include(noVm.message, "there is no VM of this id")
      const noMessage = yield* Effect.flip(eventFds.attach(99, { address: 0, data: 0 }))
      assert.strictEqual(noMessage.result, -Errno.ENODEV)
      const outer = yield* Effect.scope
      const irqFd = yield* Effect.scoped(Effect.gen(function*() {
        const vm = yield* listening()
        const bad = yield* Effect.flip(eventFds.attach(vm.id, { address: 0x1000, data: 0 }))
        assert.match(bad.message, /EINVAL.*0xFEE00000/)
        return yield* Scope.provide(eventFds.attach(vm.id, message), outer)
      }))
      assert.strictEqual(irqFd.raise(), -Errno.EBADF)
    }).pipe(onKvm(), leavingNoFile))

  it.live("a client's sink interrupts once for each element", () =>
    Effect.gen(function*() {
      const vm = yield* listening(0x41)
      const { client, heard, ready, told } = yield* hearing(vm)
      yield* vm.start
      yield* ready
      const interrupts = client.interrupts({ address: LOCAL_APIC, data: 0x41 })
      yield* Stream.range(1, 3).pipe(
        Stream.mapEffect((count) => Effect.as(heard(count - 1), count)),
        Stream.run(interrupts)
      )
      yield* heard(3)
      assert.deepStrictEqual(told, [0x41, 0x41, 0x41])
    }).pipe(onKvm(), leavingNoFile))

  it.live("a client's sink is done once the client is closed, and refused after", () =>
    Effect.gen(function*() {
      const vm = yield* listening(0x41)
      const scope = yield* Scope.fork(yield* Effect.scope)
      const client = yield* Scope.provide(
        vm.io.register({ name: "brief", ranges: [], handle: () => Effect.void }),
        scope
      )
      const interrupts = client.interrupts({ address: LOCAL_APIC, data: 0x41 })
      const close = Scope.close(scope, Exit.void)
      // It goes on for ever, but for the sink's end.
      yield* Stream.forever(Stream.fromEffect(close)).pipe(Stream.run(interrupts))
      const refusal = yield* Effect.flip(Stream.run(Stream.make(1), interrupts))
      assert.include(refusal.message, "client \"brief\" was closed")
    }).pipe(onKvm(), leavingNoFile))
})

describe("eventfds of interrupts", () => {
  /** A VM whose routing table has room for one message. */
  const oneMessage = (refusesIrqFds: boolean) => {
    const engine = {
      file: { ask: (request: number) => request === KvmIoctl.IRQFD && refusesIrqFds ? -Errno.EINVAL : 0 },
      atEnd: new Set<() => void>(),
      wake: () => undefined
    }
    const libc = { eventFd: () => 7, close: () => undefined }
    const CHIP_ENTRIES = 40
    return irqFds(new Map([[1, engine as unknown as Engine]]), libc as unknown as Libc, CHIP_ENTRIES + 1)
  }
  const attach = (service: IrqFds["Service"]) => service.attach(1, { address: LOCAL_APIC, data: 0x41 })
  const resultOf = (effect: ReturnType<typeof attach>) =>
    Effect.map(Effect.flip(effect), ({ problem: why, result }) => ({ result, why }))

  it.effect("give their line back", () =>
    Effect.gen(function*() {
      const service = oneMessage(false)
      yield* Effect.scoped(attach(service))
      yield* attach(service)
      const { result, why } = yield* resultOf(attach(service))
      assert.strictEqual(result, -Errno.ENOMEM)
      assert.include(why, "no room for another message")
    }))

  it.effect("take no line when they are refused", () =>
    Effect.gen(function*() {
      const service = oneMessage(true)
      assert.strictEqual((yield* resultOf(attach(service))).result, -Errno.EINVAL)
      assert.strictEqual((yield* resultOf(attach(service))).result, -Errno.EINVAL)
    }))
})
