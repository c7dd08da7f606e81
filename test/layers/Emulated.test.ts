/** The emulated hypervisor as programs meet it: through VirtualMachine, with real code on the real core. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, type Scope } from "effect"
import { readFileSync } from "node:fs"
import * as IoRange from "../../src/domain/IoRange.ts"
import type { IoRequest } from "../../src/domain/IoRequest.ts"
import * as VcpuRegisters from "../../src/domain/VcpuRegisters.ts"
import * as StandardPc from "../../src/layers/devices/StandardPc.ts"
import * as Emulated from "../../src/layers/Emulated.ts"
import * as FlatBinary from "../../src/layers/images/FlatBinary.ts"
import type { Hypervisor } from "../../src/services/Hypervisor.ts"
import { Upcalls } from "../../src/services/Upcalls.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import * as Guest from "../support/guest.ts"
import { boot, bootWith, brief, ENTRY, recorder, runToEnd, turns } from "../support/machines.ts"

type Provided = VirtualMachine.VirtualMachine | Hypervisor | Emulated.Capabilities | Scope.Scope

const onEmulated =
  (options: Emulated.EmulatedOptions = { clock: "Virtual" }) => <A, E, R>(program: Effect.Effect<A, E, R>) =>
    program.pipe(
      Effect.scoped,
      Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(Emulated.layerWith(options))), { local: true })
    ) as Effect.Effect<A, E | Emulated.EmulatedError, Exclude<R, Provided>>

const halt = [...Guest.cli, 0xf4]
// mov edx, ecx; dec edx; mov eax, ecx; out dx, al; out dx, ax; out dx, eax; in al, dx; in eax, dx; dec ecx; jnz
const everyWidthToPort = [0x89, 0xca, 0x4a, 0x89, 0xc8, 0xee, 0x66, 0xef, 0xef, 0xec, 0xed, 0x49, 0x75, 0xf2]
const RESULT = 0x8000
const MMIO = 0xe000_0000

const hello = readFileSync(new URL("../../guests/hello/hello.bin", import.meta.url))

const runHello = Effect.gen(function*() {
  const machines = yield* VirtualMachine.VirtualMachine
  const vm = yield* machines.create({ memoryBytes: 1 << 20 })
  let text = ""
  const trace: Array<string> = []
  const asked = yield* Deferred.make<void>()
  const pc = yield* vm.attach(StandardPc.make({
    scratch: {},
    uart: {
      onOutput: (byte) => {
        text += String.fromCharCode(byte)
        if (text.endsWith("type a byte: ")) Deferred.doneUnsafe(asked, Effect.void)
      }
    }
  }))
  yield* vm.io.observe({
    onComplete: (client, request, value) => trace.push(`${client} ${brief(request)} ${String(value)}`)
  })
  yield* vm.attach(vm.machine.fork(Effect.andThen(Deferred.await(asked), pc.uart.send("u"))))
  yield* vm.load(yield* FlatBinary.plan({ bytes: hello, address: 0x1000, memoryBytes: vm.memoryBytes }))
  const reason = yield* runToEnd(vm)
  return { reason, text, trace }
})

describe("Emulated", () => {
  it.effect("runs guests/hello to its end, twice the same in virtual time", () =>
    Effect.gen(function*() {
      const first = yield* runHello.pipe(onEmulated())
      const second = yield* runHello.pipe(onEmulated())
      assert.deepStrictEqual(first.reason, { _tag: "Exited", status: 0 })
      assert.include(first.text, "got: u")
      assert.include(first.text, "ticks: 3")
      assert.deepStrictEqual(second, first)
    }))

  it.live("runs guests/hello in real time", () =>
    Effect.gen(function*() {
      const { reason, text } = yield* runHello.pipe(onEmulated({ clock: "Real" }))
      assert.deepStrictEqual(reason, { _tag: "Exited", status: 0 })
      assert.include(text, "ticks: 3")
    }))

  it.effect("gives every width of access to its client, and the answer to the guest", () =>
    Effect.gen(function*() {
      const vm = yield* boot(Guest.code(
        Guest.out(0x100, 0x11, 1),
        Guest.out(0x102, 0x2233, 2),
        Guest.out(0x104, 0x4455_6677, 4),
        Guest.inp(0x108, 4),
        Guest.store(RESULT),
        Guest.load(MMIO, 4),
        Guest.store(MMIO + 8, 4),
        halt
      ))
      const seen = yield* recorder(vm, {
        ranges: [IoRange.ports(0x100, 0x1ff), IoRange.mmio(MMIO, MMIO + 0xfff)],
        answer: (request) => request._tag === "PortRead" ? 0xdead_beef : 0x1234_5678n
      })
      assert.deepStrictEqual(yield* runToEnd(vm), { _tag: "Halted" })
      assert.deepStrictEqual(seen.map(brief), [
        "w1 port 100 11",
        "w2 port 102 2233",
        "w4 port 104 44556677",
        "r4 port 108",
        "r4 mmio e0000000",
        "w4 mmio e0000008 12345678"
      ])
      assert.strictEqual(yield* vm.memory.read32(RESULT), 0xdead_beef)
    }).pipe(onEmulated()))

  it.effect("lets the CPU wait inside an instruction while other VMs run", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<number>()
      const slow = yield* boot(Guest.code(Guest.inp(0x100, 1), Guest.store(RESULT), halt))
      yield* slow.io.register({
        name: "slow",
        ranges: [IoRange.ports(0x100, 0x100)],
        handle: () => Deferred.await(gate)
      })
      const other = yield* boot(Guest.code(Guest.loop(1000, Guest.out(0x100, 1)), halt))
      yield* recorder(other)
      const running = yield* slow.start
      assert.deepStrictEqual(yield* runToEnd(other), { _tag: "Halted" })
      yield* Deferred.succeed(gate, 0x5a)
      assert.deepStrictEqual(yield* running.ended, { _tag: "Halted" })
      assert.strictEqual((yield* slow.memory.read(RESULT, 1))[0], 0x5a)
    }).pipe(onEmulated()))

  it.effect("lets a handler sleep in guest time, exactly", () =>
    Effect.gen(function*() {
      const vm = yield* boot(Guest.code(Guest.inp(0x100, 1), Guest.inp(0x101, 1), halt))
      const times: Array<number> = []
      yield* vm.io.register({
        name: "sleeper",
        ranges: [IoRange.ports(0x100, 0x101)],
        handle: () =>
          Effect.gen(function*() {
            const before = vm.machine.time.clock.currentTimeMillisUnsafe()
            yield* Effect.sleep("250 millis")
            times.push(vm.machine.time.clock.currentTimeMillisUnsafe() - before)
            return 1
          })
      })
      assert.deepStrictEqual(yield* runToEnd(vm), { _tag: "Halted" })
      assert.strictEqual(times.length, 2)
      for (const time of times) assert.closeTo(time, 250, 0.001)
    }).pipe(onEmulated()))

  it.effect("pauses and resumes a spinning guest, and closes it", () =>
    Effect.gen(function*() {
      const vm = yield* boot(Guest.code(Guest.forever(Guest.addImmediate(RESULT, 1))))
      let running = yield* vm.start
      for (let round = 0; round < 5; round++) {
        yield* turns(3)
        const paused = yield* running.pause
        const before = yield* vm.memory.read32(RESULT)
        yield* turns(3)
        assert.strictEqual(yield* vm.memory.read32(RESULT), before, "a paused guest executed something")
        running = yield* paused.resume
      }
      yield* turns(3)
      assert.isAbove(yield* vm.memory.read32(RESULT), 0)
    }).pipe(onEmulated()))

  it.effect("keeps an answer that comes while the VM is paused", () =>
    Effect.gen(function*() {
      const vm = yield* boot(Guest.code(Guest.inp(0x100, 1), Guest.store(RESULT), Guest.out(0x101, 1), halt))
      const gate = yield* Deferred.make<number>()
      const seen: Array<IoRequest> = []
      yield* vm.io.register({
        name: "slow",
        ranges: [IoRange.ports(0x100, 0x101)],
        handle: (request) => {
          seen.push(request)
          return request._tag === "PortRead" ? Deferred.await(gate) : Effect.void
        }
      })
      const running = yield* vm.start
      yield* turns(5)
      assert.strictEqual(seen.length, 1)
      const pausing = yield* Effect.forkChild(running.pauseWithin("1 hour"), { startImmediately: true })
      yield* Deferred.succeed(gate, 0x77)
      const paused = yield* Fiber.join(pausing)
      yield* turns(5)
      assert.strictEqual(seen.length, 1, "the guest went on although it is paused")
      const resumed = yield* paused.resume
      assert.deepStrictEqual(yield* resumed.ended, { _tag: "Halted" })
      assert.strictEqual((yield* vm.memory.read(RESULT, 1))[0], 0x77)
    }).pipe(onEmulated()))

  it.effect("resets a guest that stands inside an instruction, and runs it again", () =>
    Effect.gen(function*() {
      const vm = yield* boot(Guest.code(Guest.inp(0x100, 1), Guest.store(RESULT), halt))
      const seen = yield* recorder(vm, { answer: () => 2 })
      yield* vm.io.drain()
      const running = yield* vm.start
      yield* turns(5)
      assert.strictEqual((yield* vm.requests.inspect).slots[0]?.state, "Pending")
      const paused = yield* running.pause
      const created = yield* paused.reset
      assert.strictEqual((yield* vm.requests.inspect).slots[0]?.state, "Free")
      assert.strictEqual(seen.length, 0)
      yield* created.setRegisters(0, VcpuRegisters.flat32({ entry: ENTRY, stack: 0x1_0000 }))
      assert.deepStrictEqual(yield* runToEnd(created), { _tag: "Halted" })
      assert.strictEqual((yield* vm.memory.read(RESULT, 1))[0], 2)
      assert.strictEqual(seen.length, 1)
    }).pipe(onEmulated()))

  it.effect("reports a triple fault as a shutdown, and the VM can be reset and used again", () =>
    Effect.gen(function*() {
      // INT 3 with an empty IDT.
      const vm = yield* boot(Guest.code([0xcc]))
      const running = yield* vm.start
      const reason = yield* running.ended
      assert.strictEqual(reason._tag, "Shutdown")
      const paused = yield* running.pause
      const created = yield* paused.reset
      yield* Effect.orDie(vm.memory.write(ENTRY, Guest.code(Guest.out(0x100, 7), halt)))
      const seen = yield* recorder(vm)
      yield* created.setRegisters(0, VcpuRegisters.flat32({ entry: ENTRY, stack: 0x1_0000 }))
      assert.deepStrictEqual(yield* runToEnd(created), { _tag: "Halted" })
      assert.deepStrictEqual(seen.map(brief), ["w1 port 100 7"])
    }).pipe(onEmulated()))

  it.effect("answers writes to every port by a guest that writes garbage, and ends", () =>
    Effect.gen(function*() {
      // EDX counts down through all ports; OUT of each width to each.
      const body = Uint8Array.from([
        ...Guest.mov(Guest.Reg.ecx, 0x1_0000),
        ...everyWidthToPort,
        ...halt
      ])
      const vm = yield* boot(body)
      const reason = yield* runToEnd(vm)
      assert.deepStrictEqual(reason, { _tag: "Halted" })
      const counts = yield* vm.io.counts
      assert.isAbove(counts.find(({ client }) => client === "(nobody)")?.requests ?? 0, 300_000)
    }).pipe(onEmulated()))

  it.effect("refuses what it cannot do before anything is made", () =>
    Effect.gen(function*() {
      const machines = yield* VirtualMachine.VirtualMachine
      const messages = yield* Effect.forEach(
        [
          machines.create({ memoryBytes: 1 << 20, vcpus: 2 }),
          machines.create({ memoryBytes: 2 ** 31 })
        ],
        (create) => Effect.map(Effect.flip(create), (error) => error.message)
      )
      assert.deepStrictEqual(messages, [
        "the emulated hypervisor gives a VM at most 1 vCPUs, not 2; ask for less, or choose another hypervisor layer",
        "the emulated hypervisor gives a VM at most 2147418112 bytes of RAM, not 2147483648; ask for less, or choose " +
        "another hypervisor layer"
      ])
      const vm = yield* machines.create({ memoryBytes: 1 << 20 })
      assert.strictEqual(vm.id, 1, "a refused VM took an id")
      const second = yield* Effect.flip(vm.mapMemory({ guestAddress: 1 << 24, bytes: 4096 }))
      assert.strictEqual(second.reason._tag, "BeyondCapability")
    }).pipe(onEmulated()))

  it.effect("is a typed error when the core's bytes are not the pinned ones", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(
        Effect.void.pipe(onEmulated({ wasm: Uint8Array.of(0, 0x61, 0x73, 0x6d) }))
      )
      assert.strictEqual(error._tag, "EmulatedError")
      assert.match(error.message, /SHA-256 .* is expected/)
    }))

  it.effect("frees everything when scopes close at any point of a run", () =>
    Effect.gen(function*() {
      const machines = yield* VirtualMachine.VirtualMachine
      for (let stop = 0; stop < 40; stop++) {
        yield* Effect.scoped(Effect.gen(function*() {
          const vm = yield* bootWith(
            { memoryBytes: 1 << 18 },
            Guest.code(Guest.forever(Guest.inp(0x100, 1), Guest.load(MMIO, 4)))
          )
          assert.strictEqual(vm.id, 1, "the VM before this one is still there")
          yield* vm.io.register({
            name: "sometimes slow",
            ranges: [IoRange.ports(0x100, 0x100), IoRange.mmio(MMIO, MMIO + 3)],
            handle: (request) => request._tag === "MmioRead" && stop % 3 === 0 ? Effect.never : Effect.succeed(stop)
          })
          yield* vm.start
          yield* turns(stop % 7)
        }))
      }
      const vm = yield* machines.create({ memoryBytes: 1 << 18 })
      assert.strictEqual(vm.id, 1)
    }).pipe(onEmulated()))

  it.effect("tells upcalls with a hint of the vCPU that asks", () =>
    Effect.gen(function*() {
      const hints: Array<unknown> = []
      const upcalls = yield* Upcalls
      yield* upcalls.register((hint) => hints.push(hint))
      const vm = yield* boot(Guest.code(Guest.out(0x100, 1), halt))
      yield* recorder(vm)
      yield* runToEnd(vm)
      assert.deepStrictEqual(hints, [undefined, { vmId: 1, vcpu: 0 }])
    }).pipe(onEmulated()))
})
