import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Result, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { HypercallId } from "../../src/domain/abi/HypercallId.ts"
import { mmio, ports } from "../../src/domain/IoRange.ts"
import type { IoRequest, IoValue } from "../../src/domain/IoRequest.ts"
import * as VcpuRegisters from "../../src/domain/VcpuRegisters.ts"
import { VmTransition } from "../../src/domain/VmState.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import { HypercallGate } from "../../src/services/HypercallGate.ts"
import { IrqLines } from "../../src/services/Hypervisor.ts"
import { Machine } from "../../src/services/Machine.ts"
import { ServiceMemory } from "../../src/services/ServiceMemory.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import type { VirtualMachineError, VirtualMachineErrorReason } from "../../src/services/VirtualMachineError.ts"
import type { CreatedVm } from "../../src/services/Vm.ts"
import * as g from "../support/guest.ts"
import {
  boot,
  bootWith,
  brief,
  ENTRY,
  onSimulated,
  RAM_BYTES,
  recorder,
  runToEnd,
  STACK,
  TEST_PORTS,
  turns,
  until
} from "../support/machines.ts"

// Above the code and the stacks of sixteen vCPUs.
const DATA = 0x1_9000
const flat = VcpuRegisters.flat32({ entry: ENTRY, stack: STACK })

const reasonOf = <A, R>(effect: Effect.Effect<A, VirtualMachineError, R>) =>
  Effect.map(Effect.flip(effect), (error): VirtualMachineErrorReason => error.reason)

const tagOf = <A, R>(effect: Effect.Effect<A, VirtualMachineError, R>) =>
  Effect.map(reasonOf(effect), ({ _tag }) => _tag)

/** A simulated hypervisor that notes each hypercall that passes its gate. */
const observed = (calls: Array<number>) =>
  Layer.effectContext(Effect.gen(function*() {
    const context = yield* Effect.context<Layer.Success<typeof Simulated.layer>>()
    const gate = yield* HypercallGate
    const watched = HypercallGate.of({
      ...gate,
      call: (id, param1, param2) =>
        Effect.suspend(() => {
          calls.push(id)
          return gate.call(id, param1, param2)
        })
    })
    return Context.add(context, HypercallGate, watched)
  })).pipe(Layer.provideMerge(Simulated.layerWith({})))

const onObserved = (calls: Array<number>) =>
<A, E>(
  program: Effect.Effect<A, E, VirtualMachine.VirtualMachine | Layer.Success<typeof Simulated.layer> | Scope.Scope>
) =>
  program.pipe(
    Effect.scoped,
    Effect.provide(VirtualMachine.layer.pipe(Layer.provideMerge(observed(calls))), { local: true })
  )

/** Registers a client whose answers wait for `gate`. */
const held = (vm: CreatedVm, gate: Deferred.Deferred<void>, name = "held") => {
  const seen: Array<IoRequest> = []
  return Effect.as(
    vm.io.register({
      name,
      ranges: [TEST_PORTS],
      handle: (request): Effect.Effect<IoValue> => {
        seen.push(request)
        return Effect.as(Deferred.await(gate), 0x42)
      }
    }),
    seen
  )
}

// EFER.LMA: 64-bit mode, which no layer here starts in.
const LONG_MODE = { ...flat, ia32Efer: 1n << 10n }

describe("VirtualMachine", () => {
  describe("create", () => {
    it.effect("makes a VM with zero-filled RAM from address 0, in the state Created", () =>
      Effect.gen(function*() {
        const machines = yield* VirtualMachine.VirtualMachine
        const vm = yield* machines.create({ memoryBytes: 0x8000, vcpus: 3, name: "fresh" })
        assert.deepStrictEqual<unknown>(
          { _tag: vm._tag, id: vm.id, name: vm.name, vcpus: vm.vcpus, memoryBytes: vm.memoryBytes },
          { _tag: "Created", id: 1, name: "fresh", vcpus: 3, memoryBytes: 0x8000 }
        )
        assert.deepStrictEqual<unknown>(yield* vm.state, { _tag: "Created" })
        assert.deepStrictEqual(yield* vm.transitions, [])
        const bytes = yield* vm.memory.read(0, 0x8000)
        assert.isTrue(bytes.every((byte) => byte === 0))
        assert.strictEqual((yield* Effect.flip(vm.memory.read(0x8000, 1))).reason._tag, "OutsideRam")
        assert.deepStrictEqual((yield* vm.requests.inspect).slots.map(({ state }) => state), ["Free", "Free", "Free"])
      }).pipe(onSimulated()))

    it.effect("names VMs that were given no name", () =>
      Effect.gen(function*() {
        const machines = yield* VirtualMachine.VirtualMachine
        const names = yield* Effect.forEach([1, 2], () => machines.create({ memoryBytes: 4096 }))
        assert.deepStrictEqual(names.map(({ name }) => name), ["vm0", "vm1"])
      }).pipe(onSimulated()))

    it.effect("options that cannot be are refused before any hypercall", () => {
      const calls: Array<number> = []
      return Effect.gen(function*() {
        const machines = yield* VirtualMachine.VirtualMachine
        const rows: ReadonlyArray<readonly [options: { vcpus?: number; memoryBytes: number }, tag: string]> = [
          [{ vcpus: 0, memoryBytes: 4096 }, "BadOption"],
          [{ vcpus: 17, memoryBytes: 4096 }, "BadOption"],
          [{ vcpus: 1.5, memoryBytes: 4096 }, "BadOption"],
          [{ vcpus: NaN, memoryBytes: 4096 }, "BadOption"],
          [{ memoryBytes: 0 }, "BadOption"],
          [{ memoryBytes: -4096 }, "BadOption"],
          [{ memoryBytes: 4097 }, "BadOption"],
          [{ memoryBytes: NaN }, "BadOption"],
          [{ memoryBytes: Infinity }, "BadOption"],
          [{ memoryBytes: 2 ** 30 + 4096 }, "BeyondCapability"],
          [{ memoryBytes: 2 ** 51 }, "BeyondCapability"]
        ]
        for (const [options, tag] of rows) assert.strictEqual(yield* tagOf(machines.create(options)), tag)
        assert.deepStrictEqual(calls, [])
        yield* machines.create({ memoryBytes: 4096 })
        assert.isTrue(calls.includes(HypercallId.CreateVm), "the observer does observe")
      }).pipe(onObserved(calls))
    })

    it.effect("a hypervisor with no room refuses, and nothing of the try stays (CVE-2022-1651)", () =>
      Effect.gen(function*() {
        const machines = yield* VirtualMachine.VirtualMachine
        const memory = yield* ServiceMemory
        yield* machines.create({ memoryBytes: 4096 })
        const next = Effect.scoped(
          Effect.map(memory.allocate({ bytes: 4096, purpose: { _tag: "IoRequestPage" } }), ({ address }) => address)
        )
        const before = yield* next
        for (let i = 0; i < 3; i++) {
          const reason = yield* reasonOf(machines.create({ memoryBytes: 4096 }))
          assert.strictEqual(reason._tag, "Refused")
          assert.strictEqual(yield* next, before)
        }
      }).pipe(onSimulated({ maxVms: 1 })))

    it.effect("RAM that the host has not is refused, and nothing of the try stays", () =>
      Effect.gen(function*() {
        const machines = yield* VirtualMachine.VirtualMachine
        for (const memoryBytes of [2 ** 50, 2 ** 51]) {
          assert.strictEqual(yield* tagOf(machines.create({ memoryBytes })), "Refused")
        }
        assert.strictEqual((yield* machines.create({ memoryBytes: 4096 })).id, 1)
      }).pipe(onSimulated({ maxRamBytes: 2 ** 51 })))
  })

  describe("life", () => {
    it.effect("created, running, ended, paused, reset, and again; every step is a legal one", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.out(0x100, 1), g.stop))
        const seen = yield* recorder(vm)
        const running = yield* vm.start
        assert.strictEqual(running._tag, "Running")
        assert.deepStrictEqual(yield* running.ended, { _tag: "Halted" })
        assert.deepStrictEqual<unknown>(yield* vm.state, { _tag: "Running" }, "for the hypervisor it still runs")
        const paused = yield* running.pause
        assert.deepStrictEqual<unknown>(yield* vm.state, { _tag: "Paused", started: true })
        const again = yield* paused.reset
        assert.deepStrictEqual<unknown>(yield* vm.state, { _tag: "Created" })
        assert.deepStrictEqual(yield* runToEnd(again), { _tag: "Halted" })
        assert.strictEqual(seen.length, 2)
        const steps = yield* vm.transitions
        assert.deepStrictEqual(steps.map(({ command }) => command), ["Start", "Pause", "Reset", "Start"])
        assert.isTrue(steps.every(Schema.is(VmTransition)))
      }).pipe(onSimulated()))

    it.effect("a VM that never ran can be paused and reset, but there is nothing to resume", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.stop))
        const paused = yield* vm.pause
        assert.deepStrictEqual<unknown>(yield* vm.state, { _tag: "Paused", started: false })
        assert.deepStrictEqual<unknown>(yield* reasonOf(paused.resume), {
          _tag: "IllegalState",
          vm: vm.name,
          command: "Resume",
          state: "Paused"
        })
        const created = yield* paused.reset
        assert.deepStrictEqual(yield* runToEnd(created), { _tag: "Halted" })
      }).pipe(onSimulated()))

    it.effect("handles of earlier states are refused and change nothing", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.spin))
        const running = yield* vm.start
        const onCreated: ReadonlyArray<Effect.Effect<unknown, VirtualMachineError>> = [
          vm.start,
          vm.pause,
          vm.setRegisters(0, flat),
          vm.load({ memoryBytes: 4096, segments: [], registers: flat }),
          vm.mapMemory({ guestAddress: 0x10_0000, bytes: 4096 }),
          vm.unmapMemory({ guestAddress: 0, bytes: 4096 })
        ]
        const stale = (handle: string, current: string): VirtualMachineErrorReason => ({
          _tag: "Stale",
          vm: vm.name,
          handle,
          current
        })
        for (const command of onCreated) assert.deepStrictEqual(yield* reasonOf(command), stale("Created", "Running"))
        const paused = yield* running.pause
        assert.deepStrictEqual(yield* reasonOf(running.pause), stale("Running", "Paused"))
        const resumed = yield* paused.resume
        for (const command of [paused.resume, paused.reset, paused.setRegisters(0, flat)]) {
          assert.deepStrictEqual(yield* reasonOf(command), stale("Paused", "Running"))
        }
        assert.deepStrictEqual(yield* reasonOf(running.pause), stale("Running", "Running"))
        yield* resumed.pause
        assert.strictEqual((yield* vm.memory.regions).length, 1)
      }).pipe(onSimulated()))

    it.effect("of two commands at once one is taken, the other is stale", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.spin))
        const both = yield* Effect.all([Effect.exit(vm.start), Effect.exit(vm.start), Effect.exit(vm.pause)], {
          concurrency: "unbounded"
        })
        assert.deepStrictEqual(both.map((exit) => exit._tag), ["Success", "Failure", "Failure"])
        assert.strictEqual((yield* vm.transitions).length, 1)
      }).pipe(onSimulated()))

    it.effect("a command that comes while another is under way waits for it, and is stale then", () =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const vm = yield* boot(g.code(g.inp(0x100), g.spin))
        const seen = yield* held(vm, gate)
        const running = yield* vm.start
        yield* until(() => seen.length > 0)
        const both = yield* Effect.forkChild(
          Effect.all([Effect.exit(running.pause), Effect.exit(running.pause)], { concurrency: "unbounded" }),
          { startImmediately: true }
        )
        yield* turns(3)
        yield* Deferred.succeed(gate, undefined)
        assert.deepStrictEqual((yield* Fiber.join(both)).map((exit) => exit._tag), ["Success", "Failure"])
        assert.deepStrictEqual((yield* vm.transitions).map(({ command }) => command), ["Start", "Pause"])
      }).pipe(onSimulated()))

    it.effect("a guest that spins can be paused, resumed and closed", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const vm = yield* Scope.provide(boot(g.code(g.mov(g.Reg.eax, 0), g.forever([0x40]))), scope)
        const running = yield* vm.start
        yield* turns(2)
        const paused = yield* running.pause
        const first = (yield* paused.registers(0)).gprs.rax
        yield* turns(5)
        assert.strictEqual((yield* paused.registers(0)).gprs.rax, first, "it stands still")
        assert.isAbove(Number(first), 0)
        const again = yield* paused.resume
        yield* turns(3)
        assert.isAbove(Number((yield* (yield* again.pause).registers(0)).gprs.rax), Number(first), "it went on")
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual<unknown>(yield* vm.state, { _tag: "Destroyed" })
      }).pipe(onSimulated()))
  })

  describe("how a guest ends", () => {
    it.effect("is Stopped for who waits when the VM is reset or closed first", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const vm = yield* boot(g.code(g.forever(g.nop))).pipe(Scope.provide(scope))
        const first = yield* vm.start
        const waiting = yield* Effect.forkChild(first.ended, { startImmediately: true })
        const created = yield* (yield* first.pause).reset
        assert.deepStrictEqual(yield* Fiber.join(waiting), { _tag: "Stopped" })
        const second = yield* created.start
        const waitingAgain = yield* Effect.forkChild(second.ended, { startImmediately: true })
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(yield* Fiber.join(waitingAgain), { _tag: "Stopped" })
        assert.deepStrictEqual(yield* second.ended, { _tag: "Stopped" })
      }).pipe(onSimulated()))

    it.effect("stays what the guest said, also when the VM is closed before anyone was told", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const vm = yield* boot(g.code(g.forever(g.nop))).pipe(Scope.provide(scope))
        const running = yield* vm.start
        yield* vm.machine.end({ _tag: "Exited", status: 3 })
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(yield* running.ended, { _tag: "Exited", status: 3 })
      }).pipe(onSimulated()))

    it.effect("every vCPU halted with interrupts off", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.stop), g.code(g.loop(1000, g.nop), g.stop))
        assert.deepStrictEqual(yield* runToEnd(vm), { _tag: "Halted" })
      }).pipe(onSimulated()))

    it.effect("one vCPU that halted does not end it, while another runs", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.stop), g.code(g.spin))
        const running = yield* vm.start
        const end = yield* Effect.raceFirst(running.ended, Effect.as(turns(5), "runs on"))
        assert.strictEqual(end, "runs on")
      }).pipe(onSimulated()))

    it.effect("a device says so", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.out(0x100, 7), g.out(0x100, 8), g.spin))
        yield* vm.attach(Effect.gen(function*() {
          const machine = yield* Machine
          yield* machine.io.register({
            name: "exit",
            ranges: [TEST_PORTS],
            handle: (request) => machine.end({ _tag: "Exited", status: "value" in request ? Number(request.value) : 0 })
          })
        }))
        assert.deepStrictEqual(yield* runToEnd(vm), { _tag: "Exited", status: 7 }, "the first reason counts")
      }).pipe(onSimulated()))

    it.effect("an instruction that is not executed, with its address and bytes", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.nop), g.code([0x0f, 0x0b], g.stop))
        const end = yield* runToEnd(vm)
        assert.deepInclude<unknown>(end, { _tag: "UnsupportedInstruction", vcpu: 1, address: 0x2000 })
        assert.deepStrictEqual("bytes" in end ? end.bytes.slice(0, 4) : [], [0x0f, 0x0b, 0xfa, 0xf4])
      }).pipe(onSimulated()))

    it.effect("a triple fault is a shutdown with its cause", () =>
      Effect.gen(function*() {
        // INT 0x80 with no table of gates.
        const vm = yield* boot(g.code([0xcd, 0x80]))
        assert.deepStrictEqual<unknown>(yield* runToEnd(vm), {
          _tag: "Shutdown",
          vcpu: 0,
          cause: "interrupt 128 has no gate: the IDT ends at 0"
        })
      }).pipe(onSimulated()))

    it.effect("a VM without registers ends in a fault that says what to do", () =>
      Effect.gen(function*() {
        const machines = yield* VirtualMachine.VirtualMachine
        const end = yield* runToEnd(yield* machines.create({ memoryBytes: 4096 }))
        assert.strictEqual(end._tag, "Fault")
        assert.include("message" in end ? end.message : "", "set registers with VcpuRegisters.flat32")
      }).pipe(onSimulated()))
  })

  describe("registers", () => {
    it.effect("are read back as they were set, and as the guest left them", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.mov(g.Reg.ebx, 0xdead_beef), g.stop))
        assert.deepStrictEqual(yield* vm.registers(0), flat)
        const running = yield* vm.start
        yield* running.ended
        const paused = yield* running.pause
        const { gprs, rip } = yield* paused.registers(0)
        assert.deepStrictEqual([gprs.rbx, rip], [0xdead_beefn, BigInt(ENTRY + 7)])
      }).pipe(onSimulated()))

    it.effect("what cannot be is refused: no such vCPU, bad values, other modes, a running VM", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.spin))
        for (const vcpu of [-1, 1, 0.5, NaN, 16]) {
          assert.strictEqual(yield* tagOf(vm.setRegisters(vcpu, flat)), "BadOption")
          assert.strictEqual(yield* tagOf(vm.registers(vcpu)), "BadOption")
        }
        assert.strictEqual(yield* tagOf(vm.setRegisters(0, { ...flat, cr0: 1n })), "BadRegisters")
        assert.strictEqual(yield* tagOf(vm.setRegisters(0, VcpuRegisters.flat32({ entry: -5 }))), "BadRegisters")
        assert.strictEqual(yield* tagOf(vm.setRegisters(0, LONG_MODE)), "BeyondCapability")
        assert.deepStrictEqual(yield* vm.registers(0), flat, "nothing was set")
        yield* vm.start
        assert.strictEqual(yield* tagOf(vm.registers(0)), "Refused")
      }).pipe(onSimulated()))
  })

  describe("load", () => {
    const segment = (name: string, address: number, bytes: Uint8Array) => ({ name, address: address as never, bytes })

    it.effect("writes the segments and starts vCPU 0 where the plan says", () =>
      Effect.gen(function*() {
        const machines = yield* VirtualMachine.VirtualMachine
        const vm = yield* machines.create({ memoryBytes: RAM_BYTES })
        yield* vm.load({
          memoryBytes: RAM_BYTES,
          segments: [
            segment("code", 0x3000, g.code(g.load(DATA), [0x40], g.store(DATA), g.stop)),
            segment("data", DATA, Uint8Array.of(41))
          ],
          registers: VcpuRegisters.flat32({ entry: 0x3000 })
        })
        yield* runToEnd(vm)
        assert.strictEqual(yield* vm.memory.read32(DATA), 42)
      }).pipe(onSimulated()))

    it.effect("a plan that does not fit, or cannot start, is refused with nothing written", () =>
      Effect.gen(function*() {
        const machines = yield* VirtualMachine.VirtualMachine
        const vm = yield* machines.create({ memoryBytes: RAM_BYTES })
        const good = segment("good", 0x3000, Uint8Array.of(1, 2, 3))
        const before = yield* vm.registers(0)
        const plans = [
          { segments: [good, segment("late", RAM_BYTES - 1, Uint8Array.of(1, 2))], registers: flat },
          { segments: [good, segment("far", 2 ** 40, Uint8Array.of(1))], registers: flat },
          { segments: [good], registers: { ...flat, cr0: 1n } },
          { segments: [good], registers: { ...VcpuRegisters.flat32({ entry: 0x3000 }), ia32Efer: LONG_MODE.ia32Efer } }
        ]
        const refusals = yield* Effect.forEach(plans, (plan) => tagOf(vm.load({ memoryBytes: RAM_BYTES, ...plan })))
        assert.deepStrictEqual(refusals, ["BadImage", "BadImage", "BadRegisters", "BeyondCapability"])
        assert.deepStrictEqual(yield* vm.memory.read(0x3000, 3), Uint8Array.of(0, 0, 0))
        assert.deepStrictEqual(yield* vm.registers(0), before)
      }).pipe(onSimulated()))
  })

  describe("memory", () => {
    it.effect("that is unmapped is given back once none of its pages is mapped", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.hlt))
        const memory = yield* ServiceMemory
        const mapped = yield* vm.mapMemory({ guestAddress: 0x40_0000, bytes: 0x2000 })
        const isThere = (address: number) => Result.isSuccess(memory.page(address))
        yield* vm.unmapMemory({ guestAddress: 0x40_0000, bytes: 0x1000 })
        assert.isTrue(isThere(mapped.serviceAddress), "half of it is still mapped")
        yield* vm.unmapMemory({ guestAddress: 0x40_1000, bytes: 0x1000 })
        assert.isFalse(isThere(mapped.serviceAddress), "nobody needs it any more")
        yield* vm.mapMemory({ guestAddress: 0x40_0000, bytes: 0x2000 })
        assert.strictEqual(yield* Effect.orDie(vm.memory.read32(0x40_0000)), 0)
      }).pipe(onSimulated()))

    it.effect("is mapped, used by the guest, unmapped, and gone", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(
          g.load(0x20_0000),
          g.store(0x20_1000),
          g.load(0x20_2000),
          g.store(DATA),
          g.stop
        ))
        const region = yield* vm.mapMemory({ guestAddress: 0x20_0000, bytes: 0x3000 })
        assert.deepInclude<unknown>(region, { guestAddress: 0x20_0000, bytes: 0x3000, cacheType: "WriteBack" })
        yield* vm.memory.write32(0x20_0000, 0x1234)
        yield* vm.unmapMemory({ guestAddress: 0x20_2000, bytes: 0x1000 })
        assert.strictEqual((yield* Effect.flip(vm.memory.read(0x20_2000, 1))).reason._tag, "OutsideRam")
        yield* runToEnd(vm)
        assert.strictEqual(yield* vm.memory.read32(0x20_1000), 0x1234)
        assert.strictEqual(yield* vm.memory.read32(DATA), 0xffff_ffff, "a hole that nobody owns")
        const regions = yield* vm.memory.regions
        assert.deepStrictEqual(regions.map(({ bytes, guestAddress }) => [guestAddress, bytes]) as unknown, [
          [0, RAM_BYTES],
          [0x20_0000, 0x2000]
        ])
      }).pipe(onSimulated()))

    it.effect("overlap, misalignment, and what is not mapped are refused with nothing changed", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.stop))
        yield* vm.mapMemory({ guestAddress: 0x20_0000, bytes: 0x2000 })
        for (
          const [guestAddress, bytes] of [[0x1f_f000, 0x2000], [0x20_1000, 0x1000], [0x20_1000, 0x4000], [0, 0x1000]]
        ) {
          assert.strictEqual(yield* tagOf(vm.mapMemory({ guestAddress: guestAddress!, bytes: bytes! })), "Overlap")
        }
        const bad = [
          [0x20_0800, 0x1000],
          [0x30_0000, 0x800],
          [0x30_0000, 0],
          [0x30_0000, -0x1000],
          [-0x1000, 0x1000],
          [NaN, 0x1000],
          [2 ** 52, 0x1000],
          [2 ** 52 - 0x1000, 0x2000]
        ]
        for (const [guestAddress, bytes] of bad) {
          const region = { guestAddress: guestAddress!, bytes: bytes! }
          assert.strictEqual(yield* tagOf(vm.mapMemory(region)), "BadOption", `map ${guestAddress} ${bytes}`)
          assert.strictEqual(yield* tagOf(vm.unmapMemory(region)), "BadOption", `unmap ${guestAddress} ${bytes}`)
        }
        for (const [guestAddress, bytes] of [[0x30_0000, 0x1000], [0x20_1000, 0x2000], [0x1f_f000, 0x2000]]) {
          const region = { guestAddress: guestAddress!, bytes: bytes! }
          assert.deepStrictEqual(yield* reasonOf(vm.unmapMemory(region)), { _tag: "NotMapped", ...region })
        }
        const bytes = (yield* vm.memory.regions).map((region) => region.bytes)
        assert.deepStrictEqual(bytes, [RAM_BYTES, 0x2000])
      }).pipe(onSimulated()))

    it.effect("no VM gets more RAM than the layer says, in however many pieces", () =>
      Effect.gen(function*() {
        const vm = yield* bootWith({ memoryBytes: 0x4000 })
        yield* vm.mapMemory({ guestAddress: 0x10_0000, bytes: 0x3000 })
        const reason = yield* reasonOf(vm.mapMemory({ guestAddress: 0x20_0000, bytes: 0x2000 }))
        assert.deepInclude<unknown>(reason, { _tag: "BeyondCapability", asked: 0x9000, limit: 0x8000 })
        yield* vm.mapMemory({ guestAddress: 0x20_0000, bytes: 0x1000 })
      }).pipe(onSimulated({ maxRamBytes: 0x8000 })))

    it.effect("that is refused late leaves no Service VM memory taken", () =>
      Effect.gen(function*() {
        const memory = yield* ServiceMemory
        const probe = Effect.scoped(
          Effect.map(memory.allocate({ bytes: 4096, purpose: { _tag: "IoRequestPage" } }), ({ address }) => address)
        )
        const vm = yield* boot(g.code(g.stop))
        const before = yield* probe
        const region = { guestAddress: 0x20_0000, bytes: 0x1000, cacheType: "Nonsense" as never }
        assert.strictEqual(yield* tagOf(vm.mapMemory(region)), "Refused")
        assert.strictEqual(yield* probe, before)
        assert.strictEqual((yield* vm.memory.regions).length, 1)
      }).pipe(onSimulated()))

    it.effect("belongs to one VM", () =>
      Effect.gen(function*() {
        const one = yield* boot(g.code(g.mov(g.Reg.eax, 0x11), g.store(DATA), g.stop))
        const two = yield* boot(g.code(g.mov(g.Reg.eax, 0x22), g.store(DATA), g.stop))
        yield* Effect.all([runToEnd(one), runToEnd(two)], { concurrency: "unbounded" })
        assert.deepStrictEqual([yield* one.memory.read32(DATA), yield* two.memory.read32(DATA)], [0x11, 0x22])
      }).pipe(onSimulated()))
  })

  describe("pause", () => {
    it.effect("waits for the requests that are held; those that come meanwhile wait until the VM runs on (law 10)", () =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        // vCPU 1 asks once the test lets it: it waits for a byte in memory to become 1.
        const vm = yield* boot(
          g.code(g.inp(0x100), g.store(DATA), g.stop),
          g.code([0x80, 0x3d, 0x00, 0xa0, 0x01, 0x00, 0x00, 0x74, 0xf7], g.inp(0x300), g.stop)
        )
        const seen = yield* held(vm, gate)
        const late = yield* recorder(vm, { name: "late", ranges: [ports(0x300, 0x300)] })
        const running = yield* vm.start
        yield* until(() => seen.length > 0)
        const pausing = yield* Effect.forkChild(running.pause, { startImmediately: true })
        yield* vm.memory.write(0x1_a000, Uint8Array.of(1))
        yield* turns()
        assert.deepStrictEqual((yield* vm.requests.inspect).slots.map(({ state }) => state), ["Processing", "Pending"])
        yield* Deferred.succeed(gate, undefined)
        const paused = yield* Fiber.join(pausing)
        assert.isTrue((yield* vm.requests.inspect).slots.every((slot) => !slot.held), "no result is unwritten")
        assert.deepStrictEqual(late, [], "nothing runs after a pause")
        yield* (yield* paused.resume).ended
        assert.deepStrictEqual(late.map(brief), ["r1 port 300"])
        assert.strictEqual((yield* vm.memory.read32(DATA)) & 0xff, 0x42)
      }).pipe(onSimulated()))

    it.effect("fails with the client's name past the deadline, and the VM runs on", () =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const vm = yield* boot(g.code(g.inp(0x100), g.stop))
        const seen = yield* held(vm, gate, "stuck device")
        const running = yield* vm.start
        yield* until(() => seen.length > 0)
        const pausing = yield* Effect.forkChild(Effect.flip(running.pauseWithin("5 seconds")), {
          startImmediately: true
        })
        yield* TestClock.adjust("4999 millis")
        assert.isUndefined(pausing.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        const { reason } = yield* Fiber.join(pausing)
        assert.strictEqual(reason._tag, "NotDrained")
        assert.include("problem" in reason ? reason.problem : "", "after 5000 ms by stuck device")
        assert.deepStrictEqual<unknown>(yield* vm.state, { _tag: "Running" })
        yield* Deferred.succeed(gate, undefined)
        assert.deepStrictEqual(yield* running.ended, { _tag: "Halted" })
        yield* running.pause
      }).pipe(onSimulated()))

    it.effect("interrupted while it waits, it leaves the VM running", () =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const vm = yield* boot(g.code(g.inp(0x100), g.inp(0x300), g.stop))
        const seen = yield* held(vm, gate)
        const running = yield* vm.start
        yield* until(() => seen.length > 0)
        const pausing = yield* Effect.forkChild(running.pauseWithin("1 hour"), { startImmediately: true })
        yield* turns(3)
        yield* Fiber.interrupt(pausing)
        yield* Deferred.succeed(gate, undefined)
        assert.deepStrictEqual(yield* running.ended, { _tag: "Halted" })
      }).pipe(onSimulated()))

    it.effect("at any moment it changes nothing of what the guest computes", () =>
      Effect.gen(function*() {
        // Sums what the device answers; pauses every few turns.
        const guest = g.code(
          g.mov(g.Reg.ebx, 0),
          g.loop(200, g.inp(0x100, 4), [0x01, 0xc3]),
          [0x89, 0xd8],
          g.store(DATA),
          g.stop
        )
        const run = (pauses: boolean) =>
          Effect.gen(function*() {
            const vm = yield* boot(guest)
            let next = 1
            const seen: Array<string> = []
            yield* vm.io.register({
              name: "counter",
              ranges: [TEST_PORTS],
              handle: (request): Effect.Effect<IoValue> => {
                const value = next++
                seen.push(`${brief(request)} ${value}`)
                return value % 3 === 0 ? Effect.as(Effect.sleep(1), value) : Effect.succeed(value)
              }
            })
            let running = yield* vm.start
            let pausesTaken = 0
            if (pauses) {
              for (let i = 0; i < 30; i++) {
                yield* turns(i % 3)
                const paused = yield* running.pause
                running = yield* paused.resume
                pausesTaken++
              }
            }
            assert.deepStrictEqual(yield* running.ended, { _tag: "Halted" })
            assert.strictEqual(pausesTaken, pauses ? 30 : 0)
            return { seen, sum: yield* vm.memory.read32(DATA) }
          }).pipe(onSimulated())
        const [steady, paused] = [yield* run(false), yield* run(true)]
        assert.strictEqual(steady.sum, 200 * 201 / 2)
        assert.deepStrictEqual(paused, steady)
      }))
  })

  describe("reset", () => {
    it.effect("drops what is in flight, resets devices and the PCI address register, and keeps memory (law 11)", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(
          g.out(0xcf8, 0x8000_1234, 4),
          g.storeImmediate(DATA, 0x77),
          g.inp(0x100),
          g.stop
        ))
        const seen = yield* recorder(vm)
        let resets = 0
        yield* vm.attach(Effect.gen(function*() {
          const machine = yield* Machine
          yield* machine.onReset(Effect.sync(() => resets++))
        }))
        // The request for port 0x100 stays PENDING: the dispatcher is drained once the address register was written.
        const latched = yield* Deferred.make<void>()
        yield* vm.io.observe({
          onComplete: (client) => client.startsWith("(PCI") && Deferred.doneUnsafe(latched, Exit.void)
        })
        const running = yield* vm.start
        yield* Deferred.await(latched)
        const paused = yield* running.pause
        const created = yield* paused.reset
        assert.strictEqual(resets, 1)
        assert.deepStrictEqual((yield* vm.requests.inspect).slots.map(({ held: isHeld, state }) => [state, isHeld]), [[
          "Free",
          false
        ]])
        assert.strictEqual(yield* vm.memory.read32(DATA), 0x77)
        const asked = seen.length
        yield* created.memory.write(ENTRY, g.code(g.inp(0xcf8, 4), g.store(DATA + 4), g.stop))
        assert.deepStrictEqual(yield* runToEnd(created), { _tag: "Halted" })
        assert.strictEqual(seen.length, asked, "nothing of the old life is asked again")
        assert.strictEqual(yield* vm.memory.read32(DATA + 4), 0, "the address register was cleared")
      }).pipe(onSimulated()))

    it.effect("a request that nobody answered before the reset is not answered after it", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.inp(0x100), g.store(DATA), g.stop))
        const seen = yield* recorder(vm, { answer: () => 0x42 })
        yield* vm.io.drain()
        const running = yield* vm.start
        yield* turns()
        assert.strictEqual((yield* vm.requests.inspect).slots[0]?.state, "Pending")
        const created = yield* (yield* running.pause).reset
        assert.strictEqual((yield* vm.requests.inspect).slots[0]?.state, "Free")
        assert.deepStrictEqual(seen, [])
        yield* runToEnd(created)
        assert.strictEqual(seen.length, 1)
        assert.strictEqual((yield* vm.memory.read32(DATA)) & 0xff, 0x42)
      }).pipe(onSimulated()))

    it.effect("a claim of the old life is stale in the new one", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.inp(0x100), g.stop))
        yield* vm.io.drain()
        const running = yield* vm.start
        yield* turns()
        const paused = yield* running.pause
        const pending = yield* vm.requests.pending(0)
        const claim = yield* pending!.claim
        const created = yield* paused.reset
        assert.strictEqual((yield* Effect.flip(claim.complete(1))).reason._tag, "Stale")
        yield* recorder(vm)
        assert.deepStrictEqual(yield* runToEnd(created), { _tag: "Halted" })
      }).pipe(onSimulated()))

    it.effect("each life ends with a reason of its own", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.stop))
        let next: CreatedVm = vm
        for (const code of [[0x0f, 0x0b], g.stop, [0xcd, 3]]) {
          yield* next.memory.write(ENTRY, g.code(code))
          const running = yield* next.start
          const end = yield* running.ended
          assert.strictEqual(
            end._tag,
            code === g.stop ? "Halted" : code[0] === 0x0f ? "UnsupportedInstruction" : "Shutdown"
          )
          next = yield* (yield* running.pause).reset
        }
      }).pipe(onSimulated()))
  })

  describe("vCPUs", () => {
    for (const vcpus of [1, 2, 3, 15, 16]) {
      it.effect(`${vcpus}: each has its slot, its registers and its answers`, () =>
        Effect.gen(function*() {
          const programs = Array.from({ length: vcpus }, (_, id) =>
            g.code(g.out(0x100 + id, id), g.inp(0x100 + id), g.store(DATA + 4 * id, 1), g.stop))
          const vm = yield* boot(...programs)
          yield* vm.io.register({
            name: "echo",
            ranges: [TEST_PORTS],
            handle: (request): Effect.Effect<IoValue> => {
              assert.strictEqual("port" in request ? request.port - 0x100 : -1, request.vcpu)
              return request.vcpu % 2 === 0
                ? Effect.succeed(0xa0 + request.vcpu)
                : Effect.as(Effect.sleep(request.vcpu), 0xa0 + request.vcpu)
            }
          })
          assert.deepStrictEqual(yield* runToEnd(vm), { _tag: "Halted" })
          const answers = yield* Effect.forEach(programs, (_, id) =>
            vm.memory.read(DATA + 4 * id, 1))
          assert.deepStrictEqual(answers.map(([answer]) => answer), programs.map((_, id) => 0xa0 + id))
        }).pipe(onSimulated()))
    }

    it.effect("only vCPU 0 and those whose registers were set start", () =>
      Effect.gen(function*() {
        const machines = yield* VirtualMachine.VirtualMachine
        const vm = yield* machines.create({ memoryBytes: RAM_BYTES, vcpus: 3 })
        for (const vcpu of [0, 2]) {
          yield* vm.memory.write(ENTRY + vcpu * 0x1000, g.code(g.out(0x100, vcpu), g.stop))
          yield* vm.setRegisters(vcpu, VcpuRegisters.flat32({ entry: ENTRY + vcpu * 0x1000 }))
        }
        const seen = yield* recorder(vm)
        yield* runToEnd(vm)
        assert.deepStrictEqual(seen.map((request): number => request.vcpu).toSorted((a, b) => a - b), [0, 2])
      }).pipe(onSimulated()))

    it.effect("a slow answer to one delays no other (law 5)", () =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const vm = yield* boot(
          g.code(g.inp(0x100), g.stop),
          g.code(g.loop(100, g.out(0x300, 1)), g.out(0x301, 0), g.stop)
        )
        const seen = yield* held(vm, gate)
        const done = yield* Deferred.make<void>()
        yield* vm.io.register({
          name: "fast",
          ranges: [ports(0x300, 0x301)],
          handle: (request) =>
            Effect.sync(() => {
              if ("port" in request && request.port === 0x301) Deferred.doneUnsafe(done, Exit.void)
            })
        })
        const running = yield* vm.start
        yield* Deferred.await(done)
        assert.strictEqual(seen.length, 1)
        yield* Deferred.succeed(gate, undefined)
        yield* running.ended
      }).pipe(onSimulated()))
  })

  describe("runs are reproducible", () => {
    const Operation = Schema.TaggedUnion({
      Out: {
        port: Schema.Literals([0x100, 0x140, 0x200, 0xcf8, 0xcfc]),
        value: Schema.Natural,
        size: Schema.Literals([1, 2, 4])
      },
      In: { port: Schema.Literals([0x100, 0x140, 0x200, 0xcfc]), size: Schema.Literals([1, 2, 4]) },
      Store: {
        offset: Schema.Literals([0, 4, 0xff8, 0x2000]),
        value: Schema.Natural,
        size: Schema.Literals([1, 2, 4])
      },
      Load: { offset: Schema.Literals([0, 4, 0xff8, 0x2000]), size: Schema.Literals([1, 2, 4]) },
      Add: { offset: Schema.Literals([0, 4]), size: Schema.Literals([1, 2, 4]) },
      RepOut: { count: Schema.Literals([0, 1, 5]), size: Schema.Literals([1, 2, 4]) },
      RepIn: { count: Schema.Literals([0, 1, 5]), size: Schema.Literals([1, 2, 4]) },
      Loop: { count: Schema.Literals([1, 40, 300]) }
    })
    const MMIO = 0xf000_0000
    const codeOf = (operation: typeof Operation.Type): g.Code => {
      switch (operation._tag) {
        case "Out":
          return g.out(operation.port, operation.value % 2 ** 32, operation.size)
        case "In":
          return g.inp(operation.port, operation.size)
        case "Store":
          return g.storeImmediate(MMIO + operation.offset, operation.value % 2 ** 32, operation.size)
        case "Load":
          return g.load(MMIO + operation.offset, operation.size)
        case "Add":
          return g.addImmediate(MMIO + operation.offset, 1, operation.size)
        case "RepOut":
          return g.repOut(0x140, DATA, operation.count, operation.size)
        case "RepIn":
          return g.repIn(0x140, DATA, operation.count, operation.size)
        case "Loop":
          return g.loop(operation.count, g.nop)
      }
    }
    const Program = Schema.Array(Operation).check(Schema.isMaxLength(12))
    const Programs = Schema.Struct({
      programs: Schema.Array(Program).check(Schema.isBetweenLength(1, 3)),
      seed: Schema.Int,
      slow: Schema.Array(Schema.Boolean)
    })

    /** The trace of a run: what was asked, what the guest read, and where its memory ended. */
    const traceOf = (options: Simulated.SimulatedOptions, { programs, slow }: typeof Programs.Type) =>
      Effect.gen(function*() {
        const vm = yield* boot(...programs.map((operations) => g.code(...operations.map(codeOf), g.stop)))
        const trace: Array<string> = []
        let asked = 0
        yield* vm.io.register({
          name: "device",
          ranges: [TEST_PORTS, mmio(MMIO, MMIO + 0xfff)],
          handle: () => {
            const value = 0x0101_0101 * (asked % 250 + 1)
            const isSlow = slow[asked++ % slow.length] === true
            return isSlow ? Effect.as(Effect.sleep("10 micros"), value) : Effect.succeed(value)
          }
        })
        yield* vm.io.observe({
          onRequest: (client, request) => trace.push(`${request.vcpu} ${client} ${brief(request)}`),
          onComplete: (client, request, value) => trace.push(`${request.vcpu} ${client} = ${String(value)}`)
        })
        assert.deepStrictEqual(yield* runToEnd(vm), { _tag: "Halted" })
        trace.push(`memory ${(yield* vm.memory.read(DATA, 64)).join()}`)
        return trace
      }).pipe(onSimulated(options))

    it.effect.prop("the same seed gives the same trace", [Programs], ([run]) =>
      Effect.gen(function*() {
        const { seed } = run
        assert.deepStrictEqual(yield* traceOf({ seed }, run), yield* traceOf({ seed }, run))
      }), { arbitrary: { runs: 25 } })

    it.effect.prop(
      "polling and notifying completion give equal results (law 15)",
      [Programs],
      ([run]) =>
        Effect.gen(function*() {
          const { seed } = run
          const notified = yield* traceOf({ seed, completion: "Notify" }, run)
          assert.deepStrictEqual(yield* traceOf({ seed, completion: "Polling" }, run), notified)
        }),
      { arbitrary: { runs: 25 } }
    )

    it.effect("another VM beside it changes nothing", () =>
      Effect.gen(function*() {
        const guest = g.code(g.loop(50, g.inp(0x100), g.out(0x101, 3)), g.stop)
        const run = (neighbours: number) =>
          Effect.gen(function*() {
            const vm = yield* boot(guest, guest)
            const seen = yield* recorder(vm, { answer: (request) => request.vcpu })
            for (let i = 0; i < neighbours; i++) {
              const other = yield* boot(g.code(g.forever(g.inp(0x100))))
              yield* recorder(other)
              yield* other.start
            }
            yield* runToEnd(vm)
            return seen.map((request) => `${request.vcpu} ${brief(request)}`)
          }).pipe(onSimulated())
        assert.deepStrictEqual(yield* run(3), yield* run(0))
      }))

    it.effect("different seeds give vCPUs different orders", () =>
      Effect.gen(function*() {
        const guest = g.code(g.loop(50, g.out(0x100, 1)), g.stop)
        const run = (seed: number) =>
          Effect.gen(function*() {
            const vm = yield* boot(guest, guest, guest)
            const seen = yield* recorder(vm)
            yield* runToEnd(vm)
            return seen.map(({ vcpu }) => vcpu).join("")
          }).pipe(onSimulated({ seed }))
        const orders = yield* Effect.forEach([1, 2, 3, 4, 5], run)
        assert.isAbove(new Set(orders).size, 1)
      }))
  })

  describe("guest time", () => {
    it.effect("a device that sleeps sleeps guest time: hours pass at once, and the guest's clock shows them", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.inp(0x100), g.stop))
        const times: Array<number> = []
        yield* vm.io.register({
          name: "slow",
          ranges: [TEST_PORTS],
          handle: () =>
            Effect.clockWith((clock) => {
              times.push(clock.currentTimeMillisUnsafe())
              return Effect.andThen(
                Effect.sleep("6 hours"),
                Effect.sync(() => {
                  times.push(clock.currentTimeMillisUnsafe())
                  return 1
                })
              )
            })
        })
        yield* runToEnd(vm)
        assert.strictEqual(times[1]! - times[0]!, 6 * 3_600_000)
      }).pipe(onSimulated()))

    it.effect("a timer interrupts a guest that waits for it", () =>
      Effect.gen(function*() {
        const handler = ENTRY + 0x800
        const vm = yield* boot(g.code(
          g.lidt(DATA + 0x800),
          g.programPics(0x20, 0x28, [0xfe, 0xff]),
          g.sti,
          g.loop(3, g.hlt),
          g.stop
        ))
        yield* vm.memory.write(handler, g.code([0x50, 0x52], g.out(0x100, 1), g.endOfInterrupt(), [0x5a, 0x58], g.iret))
        yield* vm.memory.write(DATA + 0x800, g.code(g.tablePointer(DATA, 0x30)))
        yield* vm.memory.write(DATA + 0x20 * 8, g.code(g.gate(handler)))
        const irq = yield* IrqLines
        const ticks: Array<number> = []
        yield* vm.attach(Effect.gen(function*() {
          const machine = yield* Machine
          yield* machine.fork(Effect.forever(Effect.gen(function*() {
            yield* Effect.sleep("10 millis")
            irq.set(vm.id, 0, true)
            irq.set(vm.id, 0, false)
          })))
          yield* machine.io.register({
            name: "ticks",
            ranges: [TEST_PORTS],
            handle: () =>
              Effect.clockWith((clock) =>
                Effect.sync(() =>
                  void ticks.push(
                    clock.monotonicTimeNanosUnsafe() === 0n ? 0 : Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)
                  )
                )
              )
          })
        }))
        yield* runToEnd(vm)
        assert.deepStrictEqual(ticks, [10, 20, 30])
      }).pipe(onSimulated()))
  })

  describe("devices", () => {
    it.effect("that fail to start leave nothing registered", () =>
      Effect.gen(function*() {
        const vm = yield* boot(g.code(g.stop))
        yield* recorder(vm, { name: "owner", ranges: [ports(0x300, 0x30f)] })
        let ended = false
        const device = Effect.gen(function*() {
          const machine = yield* Machine
          yield* machine.fork(Effect.never.pipe(Effect.onInterrupt(() => Effect.sync(() => ended = true))))
          yield* machine.io.register({ name: "first half", ranges: [ports(0x200, 0x20f)], handle: () => Effect.void })
          yield* machine.io.register({ name: "second half", ranges: [ports(0x300, 0x30f)], handle: () => Effect.void })
        })
        assert.strictEqual((yield* Effect.flip(vm.attach(device))).reason._tag, "Overlap")
        assert.isTrue(ended)
        assert.deepStrictEqual((yield* vm.io.counts).map(({ client }) => client), ["owner"])
        yield* recorder(vm, { ranges: [ports(0x200, 0x20f)] })
      }).pipe(onSimulated()))

    it.effect("end with their VM, after it was destroyed and before its memory goes", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const vm = yield* Scope.provide(boot(g.code(g.spin)), scope)
        const log: Array<string> = []
        yield* vm.attach(Effect.gen(function*() {
          const machine = yield* Machine
          yield* Effect.addFinalizer(() =>
            Effect.gen(function*() {
              const state = yield* vm.state
              const memory = yield* Effect.exit(machine.memory.read(0, 4))
              log.push(`${state._tag}, memory ${Exit.isSuccess(memory) ? "there" : "gone"}`)
            })
          )
        }))
        yield* vm.start
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(log, ["Destroyed, memory there"])
      }).pipe(onSimulated()))
  })

  describe("close", () => {
    it.effect("answers what is held with all-ones and ends the handlers", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const vm = yield* Scope.provide(boot(g.code(g.inp(0x100), g.stop)), scope)
        let ended = 0
        const seen: Array<IoValue> = []
        const started = yield* Deferred.make<void>()
        yield* vm.attach(Effect.gen(function*() {
          const { io } = yield* Machine
          yield* io.observe({ onComplete: (_, __, value) => seen.push(value) })
          yield* io.register({
            name: "stuck",
            ranges: [TEST_PORTS],
            handle: () =>
              Effect.andThen(Deferred.succeed(started, undefined), Effect.never).pipe(
                Effect.onInterrupt(() => Effect.sync(() => ended++))
              )
          })
        }))
        yield* vm.start
        yield* Deferred.await(started)
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual([ended, seen], [1, [0xff]])
      }).pipe(onSimulated()))

    it.effect("by a handler leaves no request that the guest sent in the same turn with its handler", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const vm = yield* Scope.provide(boot(g.code(g.inp(0x100), g.inp(0x300), g.spin)), scope)
        let [begun, ended] = [false, false]
        // Both clients outlive the VM: nobody but its close ends their handlers.
        yield* vm.io.register({
          name: "closes",
          ranges: [TEST_PORTS],
          handle: () => Scope.close(scope, Exit.void)
        })
        yield* vm.io.register({
          name: "never answers",
          ranges: [ports(0x300, 0x300)],
          handle: () =>
            Effect.andThen(Effect.sync(() => begun = true), Effect.never).pipe(
              Effect.onInterrupt(() => Effect.sync(() => ended = true))
            )
        })
        yield* vm.start
        while ((yield* vm.state)._tag !== "Destroyed") yield* Effect.yieldNow
        yield* turns(3)
        assert.deepStrictEqual([begun, ended], [true, true])
        assert.isTrue((yield* vm.requests.inspect).slots.every((slot) => !slot.held))
      }).pipe(onSimulated()))

    it.effect("waits for handlers that take their time to end, before it releases the devices", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const vm = yield* Scope.provide(boot(g.code(g.forever(g.inp(0x100)))), scope)
        let [begun, ended] = [0, 0]
        yield* vm.attach(Effect.flatMap(Machine, ({ io }) =>
          io.register({
            name: "slow to end",
            ranges: [TEST_PORTS],
            handle: () =>
              Effect.andThen(Effect.sync(() => begun++), Effect.never).pipe(
                Effect.onInterrupt(() => Effect.andThen(turns(5), Effect.sync(() => ended++)))
              )
          })))
        yield* vm.start
        yield* until(() => begun > 0)
        let alive = -1
        yield* vm.attach(Effect.addFinalizer(() => Effect.sync(() => alive = begun - ended)))
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(alive, 0, "no handler outlives the VM")
      }).pipe(onSimulated()))

    it.effect("does not wait for a pause that waits for a handler", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const vm = yield* Scope.provide(boot(g.code(g.inp(0x100), g.stop)), scope)
        const gate = yield* Deferred.make<void>()
        const seen = yield* held(vm, gate)
        const running = yield* vm.start
        yield* until(() => seen.length > 0)
        const pausing = yield* Effect.forkChild(Effect.exit(running.pauseWithin("1 day")), { startImmediately: true })
        yield* turns(3)
        yield* Scope.close(scope, Exit.void)
        yield* Fiber.join(pausing)
        assert.deepStrictEqual<unknown>(yield* vm.state, { _tag: "Destroyed" })
      }).pipe(onSimulated()))

    it.effect("by a handler of its own, at once or late, is a close like any other", () =>
      Effect.forEach([0, 5], (delay) =>
        Effect.gen(function*() {
          const scope = yield* Scope.make()
          const vm = yield* Scope.provide(boot(g.code(g.inp(0x100), g.spin)), scope)
          const closed = yield* Deferred.make<void>()
          yield* vm.io.register({
            name: "closes",
            ranges: [TEST_PORTS],
            handle: () =>
              Effect.gen(function*() {
                if (delay > 0) yield* Effect.sleep(delay)
                yield* Scope.close(scope, Exit.void)
                yield* Deferred.succeed(closed, undefined)
              })
          })
          yield* vm.start
          while ((yield* vm.state)._tag !== "Destroyed") yield* Effect.yieldNow
          const machines = yield* VirtualMachine.VirtualMachine
          assert.strictEqual((yield* machines.create({ memoryBytes: 4096 })).id, 1)
        }).pipe(onSimulated())))

    it.effect("leaves handles that reach nothing: no memory, no registers, no vCPU of whoever came after", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const old = yield* Scope.provide(bootWith({ name: "old" }, g.code(g.stop)), scope)
        yield* Scope.close(scope, Exit.void)
        const next = yield* bootWith({ name: "next" }, g.code(g.stop))
        yield* next.memory.write32(DATA, 0x5ec2e7)
        assert.strictEqual(next.id, old.id, "the id is given again")
        assert.strictEqual(yield* tagOf(old.start), "Stale")
        assert.strictEqual((yield* Effect.flip(old.memory.read32(DATA))).reason._tag, "OutsideRam")
        assert.strictEqual((yield* Effect.flip(old.memory.write32(DATA, 0))).reason._tag, "OutsideRam")
        assert.deepStrictEqual<unknown>(yield* reasonOf(old.registers(0)), {
          _tag: "Refused",
          vm: "old",
          step: "read the registers of vCPU 0",
          problem: "its scope was closed; read them before"
        })
        assert.strictEqual(yield* next.memory.read32(DATA), 0x5ec2e7)
      }).pipe(onSimulated()))

    it.effect("the hypervisor forgets the VM before its memory goes", () => {
      const calls: Array<number> = []
      return Effect.gen(function*() {
        const memory = yield* ServiceMemory
        const scope = yield* Scope.make()
        const vm = yield* Scope.provide(boot(g.code(g.spin)), scope)
        const address = (yield* vm.memory.regions)[0]!.serviceAddress
        yield* vm.start
        calls.length = 0
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(calls.filter((id) => id === HypercallId.DestroyVm).length, 1)
        assert.isTrue(Result.isFailure(memory.page(address)))
      }).pipe(onObserved(calls))
    })
  })
})
