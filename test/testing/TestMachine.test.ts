import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Scope } from "effect"
import * as Arbitrary from "effect/Arbitrary"
import { VcpuId } from "../../src/domain/Address.ts"
import * as IoRange from "../../src/domain/IoRange.ts"
import type { IoRequest } from "../../src/domain/IoRequest.ts"
import * as DebugExit from "../../src/layers/devices/DebugExit.ts"
import * as MmioScratch from "../../src/layers/devices/MmioScratch.ts"
import * as Pit8254 from "../../src/layers/devices/Pit8254.ts"
import { IrqLines } from "../../src/services/Hypervisor.ts"
import { Machine } from "../../src/services/Machine.ts"
import * as Arbitraries from "../../src/testing/Arbitraries.ts"
import * as TestMachine from "../../src/testing/TestMachine.ts"

const { profile } = TestMachine

/** PCI's address register and window are folded by the dispatcher, so that no client sees them as ports. */
const isFolded = (request: IoRequest): boolean =>
  "port" in request && request.port + request.size > 0xcf8 && request.port < 0xd00

describe("TestMachine", () => {
  it.effect.prop("devices see exactly the request that was made", [
    Arbitrary.filter(Arbitraries.ioRequest(profile), (request) => !isFolded(request)),
    Arbitraries.bytes({ minBytes: 8, maxBytes: 8 })
  ], ([request, bytes]) =>
    Effect.gen(function*() {
      const answer = new DataView(bytes.buffer).getBigUint64(0)
      const machine = yield* TestMachine.make({ vcpus: 16 })
      const seen: Array<IoRequest> = []
      yield* machine.attach(machine.vm.io.registerDefault({
        name: "any",
        handle: (read) => {
          seen.push(read)
          return Effect.succeed(answer)
        }
      }))
      const got = yield* machine.submit(request)
      assert.deepStrictEqual(seen, [request])
      if ("value" in request) assert.isUndefined(got)
      else assert.strictEqual(BigInt(got!), BigInt.asUintN(8 * request.size, answer))
    }))

  it.effect("an access that waits goes on as guest time moves", () =>
    Effect.gen(function*() {
      const machine = yield* TestMachine.make()
      yield* machine.attach(machine.vm.io.register({
        name: "slow",
        ranges: [IoRange.ports(0x60, 0x60)],
        handle: () => Effect.as(Effect.sleep("5 millis"), 9)
      }))
      const reading = yield* Effect.forkChild(machine.portRead(0x60, 1), { startImmediately: true })
      yield* machine.advance("4999 micros")
      assert.isUndefined(reading.pollUnsafe())
      yield* machine.advance("1 micros")
      assert.strictEqual(yield* Fiber.join(reading), 9)
      assert.strictEqual(yield* machine.now, 5_000_000)
    }))

  it.effect("a vCPU makes one access at a time, another vCPU may", () =>
    Effect.gen(function*() {
      const machine = yield* TestMachine.make({ vcpus: 2 })
      const gate = yield* Deferred.make<number>()
      yield* machine.attach(machine.vm.io.register({
        name: "gate",
        ranges: [IoRange.ports(0x60, 0x61)],
        handle: (request) => "port" in request && request.port === 0x60 ? Deferred.await(gate) : Effect.succeed(1)
      }))
      const reading = yield* Effect.forkChild(machine.portRead(0x60, 1), { startImmediately: true })
      const refused = yield* Effect.flip(machine.portRead(0x61, 1))
      assert.deepStrictEqual(refused.reason, { _tag: "Busy", vcpu: 0 })
      assert.strictEqual(yield* machine.portRead(0x61, 1, 1), 1)
      yield* Deferred.succeed(gate, 7)
      assert.strictEqual(yield* Fiber.join(reading), 7)
      assert.strictEqual(yield* machine.portRead(0x61, 1), 1)
    }))

  it.effect("after an interrupted wait the vCPU is busy until the device answers", () =>
    Effect.gen(function*() {
      const machine = yield* TestMachine.make()
      yield* machine.attach(machine.vm.io.registerDefault({
        name: "slow",
        handle: () => Effect.as(Effect.sleep("1 millis"), 3)
      }))
      const reading = yield* Effect.forkChild(machine.portRead(0x60, 1), { startImmediately: true })
      yield* Fiber.interrupt(reading)
      assert.strictEqual((yield* Effect.flip(machine.portRead(0x60, 1))).reason._tag, "Busy")
      yield* machine.advance("1 millis")
      const again = yield* Effect.forkChild(machine.portRead(0x60, 1), { startImmediately: true })
      yield* machine.advance("1 millis")
      assert.strictEqual(yield* Fiber.join(again), 3)
    }))

  it.effect("what no guest can do is refused, and no device sees it", () =>
    Effect.gen(function*() {
      const machine = yield* TestMachine.make()
      const seen: Array<IoRequest> = []
      yield* machine.attach(machine.vm.io.registerDefault({
        name: "any",
        handle: (request) => Effect.sync(() => void seen.push(request))
      }))
      const reasonOf = (access: Effect.Effect<unknown, TestMachine.TestMachineError>) =>
        Effect.map(Effect.flip(access), (error) => error.reason._tag)
      assert.strictEqual(yield* reasonOf(machine.portRead(0xffff, 2)), "BadRequest")
      assert.strictEqual(yield* reasonOf(machine.portRead(-1, 1)), "BadRequest")
      assert.strictEqual(yield* reasonOf(machine.portRead(0x60, 8 as 4)), "BadRequest")
      assert.strictEqual(yield* reasonOf(machine.mmioRead(2 ** 52, 1)), "BadRequest")
      assert.strictEqual(yield* reasonOf(machine.mmioRead(0.5, 1)), "BadRequest")
      assert.strictEqual(yield* reasonOf(machine.portWrite(0x60, 1, 0.5)), "BadRequest")
      assert.strictEqual(yield* reasonOf(machine.portWrite(0x60, 1, 0x100)), "BadRequest")
      assert.strictEqual(yield* reasonOf(machine.portRead(0x60, 1, 1)), "NoSuchVcpu")
      assert.deepStrictEqual(seen, [])
    }))

  it.effect("interrupt lines are written down with the guest time of each change", () =>
    Effect.gen(function*() {
      const machine = yield* TestMachine.make()
      yield* machine.attach(Pit8254.make())
      // Channel 0, mode 2, divisor 11,932: 100 Hz.
      yield* machine.portWrite(0x43, 1, 0x34)
      yield* machine.portWrite(0x40, 1, 0x9c)
      yield* machine.portWrite(0x40, 1, 0x2e)
      yield* machine.takeLineChanges
      yield* machine.advance("1 second")
      const rises = (yield* machine.lineChanges).filter((change) => change.line === 0 && change.high)
      assert.approximately(rises.length, 100, 1)
      assert.approximately(rises[1]!.at - rises[0]!.at, 10_000_000, 1000)
      assert.isTrue(yield* machine.isHigh(0))
    }))

  it.effect("a reset begins the devices anew", () =>
    Effect.gen(function*() {
      const machine = yield* TestMachine.make()
      const scratch = yield* machine.attach(MmioScratch.make())
      yield* machine.mmioWrite(0xe000_0000, 8, 0x1122_3344_5566_7788n)
      assert.strictEqual(yield* machine.mmioRead(0xe000_0004, 4), 0x1122_3344n)
      yield* machine.reset
      assert.strictEqual(yield* machine.mmioRead(0xe000_0000, 8), 0n)
      assert.deepStrictEqual(yield* scratch.contents, new Uint8Array(4096))
    }))

  it.effect("an access that no device took is dropped by a reset", () =>
    Effect.gen(function*() {
      const machine = yield* TestMachine.make()
      yield* machine.vm.io.drain()
      const reading = yield* Effect.forkChild(machine.portRead(0x60, 1), { startImmediately: true })
      yield* machine.reset
      assert.deepStrictEqual((yield* Effect.flip(Fiber.join(reading))).reason, { _tag: "Dropped", vcpu: 0 })
      assert.strictEqual(yield* machine.portRead(0x60, 1), 0xff)
    }))

  it.effect("a device can end the guest, once per life", () =>
    Effect.gen(function*() {
      const machine = yield* TestMachine.make()
      yield* machine.attach(DebugExit.make())
      yield* machine.portWrite(0xf4, 1, 3)
      assert.deepStrictEqual(yield* machine.ended, { _tag: "Exited", status: 3 })
      yield* machine.reset
      yield* machine.portWrite(0xf4, 1, 4)
      assert.deepStrictEqual(yield* machine.ended, { _tag: "Exited", status: 4 })
    }))

  it.effect("devices reach memory, and options out of range are refused", () =>
    Effect.gen(function*() {
      const machine = yield* TestMachine.make({ name: "m", memoryBytes: 8192, epochMs: 0 })
      yield* machine.machine.memory.write32(8188, 0xdead_beef)
      assert.strictEqual(yield* machine.vm.memory.read32(8188), 0xdead_beef)
      assert.strictEqual(machine.vm.name, "m")
      const error = yield* Effect.flip(TestMachine.make({ vcpus: 17 }))
      assert.strictEqual(error.reason._tag, "BadOption")
    }))

  it.effect("two machines have nothing in common", () =>
    Effect.gen(function*() {
      const [one, two] = [yield* TestMachine.make(), yield* TestMachine.make()]
      const device = Effect.gen(function*() {
        const machine = yield* Machine
        const lines = yield* IrqLines
        yield* machine.io.register({
          name: "line",
          ranges: [IoRange.ports(1, 1)],
          handle: () => Effect.sync(() => lines.set(machine.vmId, 3, true))
        })
      })
      yield* one.attach(device)
      yield* two.attach(device)
      yield* one.portWrite(1, 1, 0)
      yield* one.advance("1 second")
      assert.deepStrictEqual([yield* one.isHigh(3), yield* two.isHigh(3)], [true, false])
      assert.deepStrictEqual([yield* one.now, yield* two.now], [1e9, 0])
    }))

  it.effect("closing its scope answers what waits, and leaves nothing running", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const machine = yield* Scope.provide(TestMachine.make(), scope)
      let interrupted = 0
      yield* machine.attach(machine.vm.io.registerDefault({
        name: "never",
        handle: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => void interrupted++))
      }))
      const reading = yield* Effect.forkChild(
        machine.submit({ _tag: "PciRead", vcpu: VcpuId.make(0), bus: 0, device: 0, function: 0, register: 0, size: 4 }),
        { startImmediately: true }
      )
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* Fiber.join(reading), 0xffff_ffff)
      assert.strictEqual(interrupted, 1)
      assert.strictEqual((yield* Effect.flip(machine.portRead(0x60, 1))).reason._tag, "BadRequest")
    }))
})
