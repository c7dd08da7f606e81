/**
 * A life in which one call of the kernel after the other fails: each time there is a typed error or a typed end, nothing
 * is left, and the hypervisor makes the next VM as if nothing had been.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer } from "effect"
import { vi } from "vitest"
import { type EndReason, format } from "../../../src/domain/EndReason.ts"
import { Errno } from "../../../src/domain/Errno.ts"
import { readExecute } from "../../../src/domain/MemoryRegion.ts"
import * as Kvm from "../../../src/layers/Kvm.ts"
import { DirtyLog, Doorbells, IrqFds, IrqLines, Msi, VcpuSnapshots } from "../../../src/services/Hypervisor.ts"
import * as VirtualMachine from "../../../src/services/VirtualMachine.ts"
import type { RunningVm } from "../../../src/services/Vm.ts"
import { until } from "../../support/machines.ts"
import { problem, skipped } from "./capabilities/guests.ts"
import * as CountingGuest from "./support/CountingGuest.ts"
import { differences, holdings } from "./support/resources.ts"
import { LibcWatch, newWatch } from "./support/WatchedLibc.ts"

vi.mock("../../../src/layers/native/Libc.ts", async (original) => {
  const actual = await original<typeof import("../../../src/layers/native/Libc.ts")>()
  const { watched } = await import("./support/WatchedLibc.ts")
  return { ...actual, loadLibc: watched(actual.loadLibc) }
})

/**
 * What a VM can do without: what not every KVM has, what is only looked at, and what gives back what the kernel gives
 * back with the VM.
 */
const DISPENSABLE = new Set([
  "KVM_CHECK_EXTENSION",
  "KVM_ENABLE_CAP",
  "KVM_SET_IDENTITY_MAP_ADDR",
  "KVM_SET_TSS_ADDR",
  // Of the time stamp counter alone, when the VM starts.
  "KVM_SET_MSRS",
  "KVM_GET_MP_STATE",
  "KVM_GET_REGS",
  // The kernel goes on to note what nobody asks for any more.
  "KVM_SET_USER_MEMORY_REGION",
  "KVM_IOEVENTFD",
  "KVM_IRQFD",
  "KVM_SET_GSI_ROUTING",
  // A line that is set tells nothing back.
  "KVM_IRQ_LINE"
])

/** What is asked for while vCPUs are on their threads, or for them. */
const BESIDE_THREADS = [
  "timer_create",
  "KVM_CREATE_VM",
  "KVM_CREATE_VCPU",
  "mmap",
  "KVM_SET_USER_MEMORY_REGION",
  "KVM_SET_MP_STATE",
  "KVM_GET_MP_STATE",
  "KVM_GET_REGS",
  "KVM_GET_SREGS"
]

const MESSAGE = { address: 0xfee0_0000, data: 0x30 }

/** The guest's end, where another was expected. */
class Ended extends Error {
  readonly _tag = "Ended"
  readonly reason: EndReason
  constructor(reason: EndReason) {
    super(format(reason))
    this.reason = reason
  }
}

/** Returns when it is so, unless the guest ends before. */
const unlessEnded = (running: RunningVm, isSo: () => boolean) =>
  Effect.raceFirst(until(isSo), Effect.flatMap(running.ended, (reason) => Effect.fail(new Ended(reason))))

const untilHalted = (running: RunningVm) =>
  Effect.flatMap(running.ended, (reason) => reason._tag === "Halted" ? Effect.void : Effect.fail(new Ended(reason)))

const accepted = (result: number) => result === 0 ? Effect.void : Effect.fail({ _tag: "Refused", result } as const)

/** Everything that a VM on KVM does, once. */
const life = Effect.gen(function*() {
  const { device, vm } = yield* CountingGuest.make(2)
  yield* vm.mapMemory({ guestAddress: 0x10_0000, bytes: 0x3000, rights: readExecute })
  yield* vm.unmapMemory({ guestAddress: 0x10_1000, bytes: 0x1000 })
  const running = yield* vm.start
  yield* unlessEnded(running, () => device.isUnderLoad)
  let paused = yield* running.pause

  yield* Effect.scoped(Effect.gen(function*() {
    const written = yield* (yield* DirtyLog).track(vm.id)
    yield* (yield* Doorbells).attach(vm.id, { space: "Port", address: 0x2000, bytes: 4 })
    const interrupt = yield* (yield* IrqFds).attach(vm.id, MESSAGE)
    yield* accepted(interrupt.raise())
    yield* accepted((yield* Msi).inject(vm.id, MESSAGE))
    ;(yield* IrqLines).set(vm.id, 4, true)
    yield* written.take
  }))

  const snapshots = yield* VcpuSnapshots
  for (;;) {
    const inside = (yield* vm.requests.inspect).slots[1]!.state !== "Free"
    if (!inside) break
    const again = yield* paused.resume
    yield* Effect.yieldNow
    paused = yield* again.pause
  }
  yield* snapshots.write(vm.id, 1, yield* snapshots.read(vm.id, 1))
  yield* vm.registers(1)

  device.isEnding = true
  const resumed = yield* paused.resume
  yield* untilHalted(resumed)
  yield* sameCounts(vm, device)
  const created = yield* (yield* resumed.pause).reset
  yield* created.mapMemory({ guestAddress: 0x20_0000, bytes: 0x1000 })
  yield* untilHalted(yield* created.start)
  yield* sameCounts(vm, device)
})

const sameCounts = (...[vm, device]: Parameters<typeof CountingGuest.disagreements>) =>
  Effect.map(CountingGuest.disagreements(vm, device), (problems) => assert.deepStrictEqual(problems, []))

/** What a VM does whose predecessor failed. */
const nextLife = Effect.gen(function*() {
  const { device, vm } = yield* CountingGuest.make(2)
  device.isEnding = true
  yield* untilHalted(yield* vm.start)
  yield* sameCounts(vm, device)
})

interface Failing {
  /** Counted from 0; that call alone fails. */
  readonly index: number
  readonly errno: number
  readonly only?: ReadonlySet<string>
}

/** A hypervisor and a life on it, with one call that fails; which call it was, if the life came so far. */
const lived = (options: Kvm.KvmOptions, { errno, index, only }: Failing) =>
  Effect.gen(function*() {
    const watch = newWatch()
    let failed: string | undefined
    let candidates = 0
    watch.fail = (call) => {
      if ((only !== undefined && !only.has(call)) || candidates++ !== index) return 0
      failed = call
      return -errno
    }
    let exit: Exit.Exit<void, unknown> = Exit.void
    const hypervisor = yield* Effect.exit(Effect.scoped(Effect.gen(function*() {
      const context = yield* Layer.build(
        VirtualMachine.layer.pipe(Layer.provideMerge(Layer.fresh(Kvm.layerWith(options))))
      )
      const isBuilt = failed === undefined
      exit = yield* Effect.exit(Effect.provide(Effect.scoped(life), context))
      watch.fail = () => 0
      if (isBuilt) yield* Effect.orDie(Effect.provide(Effect.scoped(nextLife), context))
    })))
    if (Exit.isFailure(hypervisor)) exit = hypervisor
    return { exit, failed, watch }
  })

const assertTyped = (exit: Exit.Exit<void, unknown>, call: string, index: number): void => {
  const name = `${call}, call ${index}`
  if (Exit.isSuccess(exit)) {
    assert.isTrue(DISPENSABLE.has(call), `nobody heard that ${name} failed`)
    return
  }
  for (const reason of exit.cause.reasons) {
    if (reason._tag !== "Fail") assert.fail(`${name}: ${Cause.pretty(exit.cause)}`)
    const error = reason.error as { readonly _tag: string; readonly reason?: EndReason }
    assert.include(["KvmError", "VirtualMachineError", "CapabilityError", "Refused", "Ended"], error._tag, name)
    if (error._tag === "Ended") assert.include(["Fault", "InternalError"], error.reason!._tag, name)
  }
}

const assertNothingLeft = (watch: LibcWatch, name: string): void => {
  assert.deepStrictEqual([...watch.held], [], name)
  assert.deepStrictEqual(watch.problems, [], name)
}

const WHOLE: Kvm.KvmOptions = { timer: "Kernel" }

describe.skipIf(problem !== undefined)(`a call of the kernel that fails${skipped}`, () => {
  it.live("each in its turn: an error or an end that is typed, and nothing is left", () =>
    Effect.gen(function*() {
      const { watch: all } = yield* lived(WHOLE, { index: -1, errno: Errno.EIO })
      const only = new Set(all.calls.filter((call) => call !== "KVM_RUN"))
      const before = holdings()
      let isReached = true
      for (let index = 0; isReached; index++) {
        const { exit, failed, watch } = yield* lived(WHOLE, { index, errno: Errno.EIO, only })
        if (failed !== undefined) assertTyped(exit, failed, index)
        else assert.isTrue(Exit.isSuccess(exit), Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "")
        assertNothingLeft(watch, `${failed}, call ${index}`)
        isReached = failed !== undefined
      }
      assert.deepStrictEqual(differences(before, holdings()), [])
    }), 120_000)

  it.live("to run a vCPU ends its VM", () =>
    Effect.gen(function*() {
      for (let index = 0; index < 10; index++) {
        const { exit, watch } = yield* lived(WHOLE, { index, errno: Errno.EIO, only: new Set(["KVM_RUN"]) })
        const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
        assert.instanceOf(error, Ended)
        assert.strictEqual(error.reason._tag, "Fault")
        assert.match(error.message, /KVM_RUN of vCPU \d failed with EIO/)
        assertNothingLeft(watch, `KVM_RUN, ${index}`)
      }
    }))

  it.live("on worker threads: an error or an end that is typed, and nothing is left", () =>
    Effect.gen(function*() {
      const options = { ...WHOLE, placement: "Worker" } as const
      yield* lived(options, { index: -1, errno: Errno.EIO })
      const before = holdings()
      for (const call of BESIDE_THREADS) {
        const { exit, failed, watch } = yield* lived(options, { index: 0, errno: Errno.EIO, only: new Set([call]) })
        if (failed !== undefined) assertTyped(exit, failed, 0)
        assertNothingLeft(watch, call)
      }
      assert.deepStrictEqual(differences(before, holdings()), [])
    }))

  it.live("because of a signal is made again", () =>
    Effect.gen(function*() {
      // Those that wait for something, and can be ended while they do.
      const only = new Set([
        "KVM_CREATE_VM",
        "KVM_CREATE_VCPU",
        "KVM_CREATE_IRQCHIP",
        "KVM_CREATE_PIT2",
        "KVM_SET_USER_MEMORY_REGION",
        "KVM_IRQ_LINE",
        "KVM_RUN"
      ])
      let isReached = true
      for (let index = 0; isReached; index++) {
        const { exit, failed, watch } = yield* lived(WHOLE, { index, errno: Errno.EINTR, only })
        assert.isTrue(
          Exit.isSuccess(exit),
          `${failed}, ${index}: ${Exit.isFailure(exit) ? Cause.pretty(exit.cause) : ""}`
        )
        assertNothingLeft(watch, `${failed}, ${index}`)
        isReached = failed !== undefined
      }
    }))
})
