/** Runs on the real driver: what happens beside the straight path. Each part tells what it saw. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import { readdirSync } from "node:fs"
import { MemoryAccess, MemoryType } from "../../../../src/domain/abi/MemoryRegionBatch.ts"
import * as IoRange from "../../../../src/domain/IoRange.ts"
import * as Acrn from "../../../../src/layers/Acrn.ts"
import * as FlatBinary from "../../../../src/layers/images/FlatBinary.ts"
import * as Hypercalls from "../../../../src/services/Hypercalls.ts"
import { Doorbells, IrqFds, IrqLines, IrqMonitor, Msi } from "../../../../src/services/Hypervisor.ts"
import { ServiceMemory } from "../../../../src/services/ServiceMemory.ts"
import * as VirtualMachine from "../../../../src/services/VirtualMachine.ts"
import { report } from "./report.ts"

const hex = (text: string) => new Uint8Array(Buffer.from(text.replaceAll(" ", ""), "hex"))

// mov dx, 0x500; again: out dx, al; inc al; jmp again
const OUT_FOREVER = hex("66ba0005 ee fec0 ebfb")

const openFiles = () => readdirSync("/proc/self/fd").length
const threads = () => readdirSync("/proc/self/task").length

const machine = (memoryBytes: number, code: Uint8Array) =>
  Effect.gen(function*() {
    const machines = yield* VirtualMachine.VirtualMachine
    const vm = yield* machines.create({ memoryBytes })
    yield* vm.load(yield* FlatBinary.plan({ bytes: code, address: 0x1000, memoryBytes: vm.memoryBytes }))
    return vm
  })

const parts: Record<string, Effect.Effect<unknown, unknown, any>> = {
  // A handler that never ends: the VM is closed while it has the request, and while ATTACH would spin.
  heldAtClose: Effect.gen(function*() {
    const usage = yield* Effect.scoped(Effect.gen(function*() {
      const vm = yield* machine(1 << 20, OUT_FOREVER)
      const asked = { times: 0 }
      yield* vm.io.register({
        name: "never",
        ranges: [IoRange.ports(0x500, 0x500)],
        handle: () => {
          asked.times++
          return Effect.never
        }
      })
      yield* vm.start
      while (asked.times === 0) yield* Effect.sleep(1)
      const before = process.cpuUsage()
      yield* Effect.sleep(500)
      const { system, user } = process.cpuUsage(before)
      return { cpuMs: (system + user) / 1000 }
    }))
    return usage
  }),
  // The thread is inside ATTACH, the VM was never started.
  waitingAtClose: Effect.scoped(Effect.andThen(machine(1 << 20, OUT_FOREVER), Effect.sleep(50))).pipe(
    Effect.as("closed")
  ),
  pauseDeadline: Effect.scoped(Effect.gen(function*() {
    const vm = yield* machine(1 << 20, OUT_FOREVER)
    yield* vm.io.register({ name: "never", ranges: [IoRange.ports(0x500, 0x500)], handle: () => Effect.never })
    const running = yield* vm.start
    yield* Effect.sleep(50)
    return (yield* Effect.flip(running.pauseWithin(20))).message
  })),
  throughput: Effect.scoped(Effect.gen(function*() {
    const vm = yield* machine(1 << 20, OUT_FOREVER)
    let requests = 0
    yield* vm.io.register({
      name: "count",
      ranges: [IoRange.ports(0x500, 0x500)],
      handle: () => {
        requests++
        return Effect.undefined
      }
    })
    const running = yield* vm.start
    const begin = performance.now()
    yield* Effect.sleep(1000)
    const seconds = (performance.now() - begin) / 1000
    yield* running.pause
    return { perSecond: Math.round(requests / seconds) }
  })),
  twoVms: Effect.scoped(Effect.gen(function*() {
    const vms = yield* Effect.all([machine(1 << 20, OUT_FOREVER), machine(1 << 20, OUT_FOREVER)], { concurrency: 2 })
    const counts = [0, 0]
    for (const [i, vm] of vms.entries()) {
      yield* vm.io.register({
        name: "count",
        ranges: [IoRange.ports(0x500, 0x500)],
        handle: () => {
          counts[i]!++
          return Effect.undefined
        }
      })
      yield* vm.start
    }
    yield* Effect.sleep(300)
    return { ids: vms.map(({ id }) => id), both: counts.every((count) => count > 10) }
  })),
  slowOne: Effect.scoped(Effect.gen(function*() {
    const machines = yield* VirtualMachine.VirtualMachine
    const vm = yield* machines.create({ memoryBytes: 1 << 20, vcpus: 2 })
    const plan = yield* FlatBinary.plan({ bytes: OUT_FOREVER, address: 0x1000, memoryBytes: vm.memoryBytes })
    yield* vm.load(plan)
    // The other vCPU writes to the next port.
    yield* vm.memory.write(0x2000, hex("66ba0105 ee fec0 ebfb"))
    yield* vm.setRegisters(1, { ...plan.registers, rip: 0x2000n })
    let asked = 0
    yield* vm.io.register({ name: "never", ranges: [IoRange.ports(0x500, 0x500)], handle: () => Effect.never })
    yield* vm.io.register({
      name: "fast",
      ranges: [IoRange.ports(0x501, 0x501)],
      handle: () => {
        asked++
        return Effect.undefined
      }
    })
    yield* vm.start
    yield* Effect.sleep(100)
    const first = asked
    const before = process.cpuUsage()
    yield* Effect.sleep(500)
    const { system, user } = process.cpuUsage(before)
    return { isFastServed: asked - first > 20, perSecond: (asked - first) * 2, cpuMs: (system + user) / 1000 }
  })),
  bigRam: Effect.scoped(Effect.gen(function*() {
    const vm = yield* machine(150 * 2 ** 20, OUT_FOREVER)
    return (yield* vm.memory.regions).length
  })),
  refusals: Effect.scoped(Effect.gen(function*() {
    const vm = yield* machine(1 << 20, OUT_FOREVER)
    const message = (effect: Effect.Effect<unknown, { readonly message: string }>) =>
      Effect.map(Effect.result(effect), (result) => Result.isFailure(result) ? result.failure.message : "accepted")
    return {
      unmap: yield* message(vm.unmapMemory({ guestAddress: 0, bytes: 4096 })),
      uncached: yield* message(vm.mapMemory({ guestAddress: 2 ** 24, bytes: 4096, cacheType: "Uncached" })),
      readOnly: yield* message(
        vm.mapMemory({ guestAddress: 2 ** 25, bytes: 8192, rights: { read: true, write: false, execute: false } })
      )
    }
  })),
  byHand: Effect.scoped(Effect.gen(function*() {
    const hypercalls = yield* Hypercalls.make
    const memory = yield* ServiceMemory
    const page = yield* memory.allocate({ bytes: 4096, purpose: { _tag: "IoRequestPage" } })
    const ram = yield* memory.allocate({ bytes: 8192, purpose: { _tag: "HypercallStructures" } })
    const outcome = (effect: Effect.Effect<unknown, Hypercalls.HypercallError>) =>
      Effect.map(
        Effect.result(effect),
        (result) =>
          Result.isSuccess(result) ? 0 : result.failure.reason._tag === "Refused" ? result.failure.reason.result : -999
      )
    const { vmId } = yield* hypercalls.createVm({ cpuAffinity: 1n })
    const map = (attr: number, serviceVmPa: bigint, type = 0) =>
      outcome(hypercalls.setMemoryRegions(vmId, [{ type, attr, userVmPa: 0n, serviceVmPa, size: 4096n }]))
    const at = BigInt(ram.address)
    return {
      startWithoutPage: yield* outcome(hypercalls.startVm(vmId)),
      badPage: yield* outcome(hypercalls.setIoRequestBuffer(vmId, ram.address)),
      page: yield* outcome(hypercalls.setIoRequestBuffer(vmId, page.address)),
      destroyCreated: yield* outcome(hypercalls.destroyVm(vmId)),
      resetCreated: yield* outcome(hypercalls.resetVm(vmId)),
      foreignMemory: yield* map(MemoryAccess.All | MemoryType.WriteBack, 0x1000n),
      mmioOfNoWindow: yield* map(MemoryAccess.All | MemoryType.Uncached, at),
      writeCombining: yield* map(MemoryAccess.All | MemoryType.WriteCombining, at),
      unmapNothing: yield* map(0, 0n, 2),
      ram: yield* map(MemoryAccess.All | MemoryType.WriteBack, at),
      unmapRam: yield* map(0, 0n, 2),
      line: yield* outcome(hypercalls.setIrqLine(vmId, 4, 0)),
      noLine: yield* outcome(hypercalls.setIrqLine(vmId, 99, 0)),
      start: yield* outcome(hypercalls.startVm(vmId)),
      destroyRunning: yield* outcome(hypercalls.destroyVm(vmId)),
      notifyNoVcpu: yield* outcome(hypercalls.notifyRequestFinish(vmId, 5)),
      pageRunning: yield* outcome(hypercalls.setIoRequestBuffer(vmId, page.address)),
      pause: yield* outcome(hypercalls.pauseVm(vmId)),
      reset: yield* outcome(hypercalls.resetVm(vmId)),
      pauseAgain: yield* outcome(hypercalls.pauseVm(vmId)),
      destroy: yield* outcome(hypercalls.destroyVm(vmId)),
      gone: yield* outcome(hypercalls.pauseVm(vmId))
    }
  })),
  capabilities: Effect.scoped(Effect.gen(function*() {
    const vm = yield* machine(1 << 20, OUT_FOREVER)
    const doorbells = yield* Doorbells
    const irqFds = yield* IrqFds
    const monitor = yield* IrqMonitor
    const msi = yield* Msi
    const lines = yield* IrqLines
    const bell = yield* doorbells.attach(vm.id, { space: "Port", address: 0x500, bytes: 1 })
    const refused = (effect: Effect.Effect<unknown, { readonly message: string }, any>) =>
      Effect.map(Effect.flip(Effect.scoped(effect)), ({ message }) => message)
    const irqFd = yield* irqFds.attach(vm.id, { address: 0xfee0_0000, data: 0x30 })
    const wide = yield* refused(doorbells.attach(vm.id, { space: "Mmio", address: 0x1000, bytes: 3 as 1 }))
    const running = yield* vm.start
    yield* Effect.sleep(200)
    const rings = yield* bell.rings
    lines.set(vm.id, 4, true)
    yield* running.pause
    return {
      rang: rings > 10n,
      raised: irqFd.raise(),
      msi: msi.inject(vm.id, { address: 0xfee0_0000, data: 0x30 }),
      noVm: msi.inject(99, { address: 0xfee0_0000, data: 0x30 }),
      counts: yield* refused(monitor.counts(vm.id)),
      delay: yield* refused(monitor.delay(vm.id, 1)),
      wide,
      seen: yield* vm.io.counts
    }
  })),
  // An interruption in the middle of everything.
  interrupted: Effect.gen(function*() {
    for (const ms of [1, 5, 20, 60, 120]) {
      const fiber = yield* Effect.forkChild(Effect.scoped(Effect.gen(function*() {
        const vm = yield* machine(1 << 20, OUT_FOREVER)
        yield* vm.start
        yield* Effect.never
      })))
      yield* Effect.sleep(ms)
      yield* Fiber.interrupt(fiber)
    }
    return "clean"
  })
}

const chosen = process.argv.slice(2)
const before = { files: openFiles(), threads: threads() }
const exit = await Effect.runPromiseExit(
  Effect.gen(function*() {
    for (const [name, part] of Object.entries(parts)) {
      if (chosen.length > 0 && !chosen.includes(name)) continue
      const begin = performance.now()
      const result = yield* Effect.exit(part)
      report(name, Exit.isSuccess(result) ? result.value : `failed: ${Cause.pretty(result.cause).slice(0, 600)}`)
      report("ms", Math.round(performance.now() - begin))
    }
    const driver = yield* Acrn.Driver
    report("driver", (yield* driver.refusals).map(({ message }) => message))
  }).pipe(Effect.scoped, Effect.provide(VirtualMachine.layer), Effect.provide(Acrn.layer)) as Effect.Effect<void>
)
report("exit", Exit.isSuccess(exit) ? "success" : Cause.pretty(exit.cause))
report("left", { files: openFiles() - before.files, threads: threads() - before.threads })
