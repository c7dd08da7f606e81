/** The whole state of real vCPUs, read and written. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Result, Schema } from "effect"
import { ports } from "../../../../src/domain/IoRange.ts"
import { type VcpuSnapshot, VcpuSnapshotJson } from "../../../../src/domain/VcpuSnapshot.ts"
import * as Kvm from "../../../../src/layers/Kvm.ts"
import { type CapabilityError, VcpuSnapshots } from "../../../../src/services/Hypervisor.ts"
import type { CreatedVm, Vm } from "../../../../src/services/Vm.ts"
import * as Guest from "../../../support/guest.ts"
import { kvmProblem } from "../../../support/kvm.ts"
import {
  boot,
  code,
  dataOf,
  holdOf,
  mixer,
  onKvm,
  RAM_BYTES,
  readAll,
  startOf,
  still,
  store32,
  untilAsked
} from "./longMode.ts"

const PORT = 0x100
const ROUNDS = 1000
const problem = kvmProblem()

const throughJson = (snapshot: VcpuSnapshot): VcpuSnapshot => {
  const text = JSON.stringify(Result.getOrThrow(Schema.encodeUnknownResult(VcpuSnapshotJson)(snapshot)))
  return Result.getOrThrow(Schema.decodeUnknownResult(VcpuSnapshotJson)(JSON.parse(text)))
}

/**
 * A device whose answer is made of what it was told last, by each vCPU. Once each was told `mark` words they are held
 * outside of any request, and `marked` returns.
 */
const attachMixer = (vm: Vm, mark: number) =>
  Effect.gen(function*() {
    const marked = yield* Deferred.make<void>()
    let missing = vm.vcpus
    const device: Device = { told: Array.from({ length: vm.vcpus }, () => []) }
    yield* vm.io.register({
      name: "mixer",
      ranges: [ports(PORT, PORT + 3)],
      handle: (request) =>
        Effect.gen(function*() {
          const told = device.told[request.vcpu]!
          if (request._tag === "PortWrite") {
            told.push(request.value)
            if (told.length === mark) yield* Effect.orDie(vm.memory.write32(holdOf(request.vcpu), 1))
            return undefined
          }
          if (told.length === mark && --missing === 0) Deferred.doneUnsafe(marked, Effect.void)
          return told.at(-1)! >>> 3
        })
    })
    return { marked: Deferred.await(marked), device }
  })

interface Device {
  told: Array<Array<number>>
}

const release = (vm: Vm) =>
  Effect.forEach(
    Array.from({ length: vm.vcpus }, (_, vcpu) => vcpu),
    (vcpu) => Effect.orDie(vm.memory.write32(holdOf(vcpu), 0)),
    { discard: true }
  )

/** A VM as it stands: vCPUs, memory, and what the device was told. */
const save = (vm: Vm, device: Device) =>
  Effect.gen(function*() {
    const vcpus = (yield* readAll(vm)).map(throughJson)
    yield* release(vm)
    return { vcpus, memory: yield* vm.memory.read(0, RAM_BYTES), told: device.told.map((words) => [...words]) }
  })

const restore = (
  vm: Vm,
  device: Device,
  { memory, told, vcpus }: Effect.Success<ReturnType<typeof save>>
) =>
  Effect.gen(function*() {
    const snapshots = yield* VcpuSnapshots
    yield* vm.memory.write(0, memory)
    for (const [vcpu, snapshot] of vcpus.entries()) yield* snapshots.write(vm.id, vcpu, snapshot)
    device.told = told.map((words) => [...words])
  })

const runsTheSame = (vcpus: number) =>
  Effect.gen(function*() {
    const programs = Array.from({ length: vcpus }, (_, vcpu) => mixer(vcpu, ROUNDS, PORT))
    const vm = yield* boot(programs)
    const { device, marked } = yield* attachMixer(vm, ROUNDS / 2)
    const first = yield* vm.start
    yield* Effect.raceFirst(marked, Effect.flatMap(first.ended, (end) => Effect.die(end)))
    const paused = yield* first.pause
    const saved = yield* save(paused, device)
    for (const words of saved.told) assert.strictEqual(words.length, ROUNDS / 2)

    // What was read is what is there when it is written.
    yield* restore(paused, device, saved)
    assert.deepStrictEqual((yield* readAll(paused)).map(still), saved.vcpus.map(still))

    const second = yield* paused.resume
    assert.deepStrictEqual(yield* second.ended, { _tag: "Halted" })
    const expected = device.told
    for (const words of expected) assert.strictEqual(words.length, ROUNDS)
    const end = yield* second.pause

    // A new life from the same point; the old one has ended.
    const created = yield* end.reset
    yield* restore(created, device, saved)
    const third = yield* created.start
    assert.deepStrictEqual(yield* third.ended, { _tag: "Halted" })
    assert.deepStrictEqual(device.told, expected)
    yield* third.pause
    return { saved, expected }
  })

const refusalOf = <A>(effect: Effect.Effect<A, CapabilityError, VcpuSnapshots>) =>
  Effect.map(Effect.flip(effect), ({ message, result }) => ({ message, result }))

const write = (vm: Vm, vcpu: number, snapshot: VcpuSnapshot) =>
  Effect.flatMap(VcpuSnapshots, (snapshots) => snapshots.write(vm.id, vcpu, snapshot))

const read = (vm: Vm, vcpu: number) => Effect.flatMap(VcpuSnapshots, (snapshots) => snapshots.read(vm.id, vcpu))

/** Writes snapshots that are refused, and sees that the vCPU is what it was. */
const changesNothing = (vm: CreatedVm, cases: (good: VcpuSnapshot) => ReadonlyArray<readonly [VcpuSnapshot, RegExp]>) =>
  Effect.gen(function*() {
    const good = yield* read(vm, 0)
    for (const [bad, expected] of cases(good)) {
      const { message, result } = yield* refusalOf(write(vm, 0, bad)).pipe(
        Effect.catchCause(() => Effect.die(`taken, not refused: ${String(expected)}`))
      )
      assert.match(message, expected)
      assert.isBelow(result, 0)
      assert.deepStrictEqual(still(yield* read(vm, 0)), still(good))
    }
  })

describe.skipIf(problem !== undefined)(
  `snapshots of vCPUs on KVM${problem === undefined ? "" : ` (skipped: ${problem})`}`,
  () => {
    it.live("a guest goes on from one as it did the first time, and again in another life", () =>
      runsTheSame(1).pipe(onKvm({ interruptController: "None" })))

    it.live.each(["Inline", "Worker"] as const)(
      "two vCPUs with local APICs go on from theirs, placed %s",
      (placement) => runsTheSame(2).pipe(onKvm({ placement }))
    )

    it.live("one taken on one VM goes on on another", () =>
      Effect.gen(function*() {
        const { expected, saved } = yield* runsTheSame(1)
        const other = yield* boot([Guest.stop])
        const { device } = yield* attachMixer(other, 0)
        yield* restore(other, device, saved)
        const running = yield* other.start
        assert.deepStrictEqual(yield* running.ended, { _tag: "Halted" })
        assert.deepStrictEqual(device.told, expected)
        yield* running.pause
      }).pipe(onKvm()))

    it.live("what is written is read back, of every part", () =>
      Effect.gen(function*() {
        const vm = yield* boot([Guest.stop])
        const before = yield* read(vm, 0)
        const xsave = Uint8Array.from(before.xsave)
        // Two XMM registers, and a header that says that SSE state is there.
        xsave.fill(0xa5, 160, 192)
        new DataView(xsave.buffer).setBigUint64(512, 3n, true)
        const localApic = Uint8Array.from(before.localApic!)
        // The task's priority and so the processor's, and the spurious vector with the chip enabled.
        localApic[0x80] = localApic[0xa0] = 0x50
        localApic.set([0xff, 0x01], 0xf0)
        const after: VcpuSnapshot = {
          ...before,
          activity: "Halted",
          general: { ...before.general, r13: 0x1122_3344_5566_7788n, rflags: 0x246n },
          special: { ...before.special, cr2: 0xdead_beefn, cr8: 5n, fs: { ...before.special.fs, base: 0x1234_5000n } },
          xsave,
          localApic,
          debug: { ...before.debug, addresses: [1n, 2n, 3n, 4n] },
          msrs: before.msrs.map((msr) => msr.index === 0x174 ? { ...msr, value: 0x77n } : msr),
          events: {
            ...before.events,
            exception: { vector: 14, isInjected: false, errorCode: 2, payload: 0x9000n },
            nmi: { pending: 1, isInjected: false, isMasked: true },
            isTripleFaultPending: true
          }
        }
        yield* write(vm, 0, after)
        assert.deepStrictEqual(still(yield* read(vm, 0)), still(after))
        const interrupted = {
          ...before,
          events: { ...before.events, interrupt: { vector: 0x41, isSoftware: false } }
        }
        yield* write(vm, 0, interrupted)
        assert.deepStrictEqual(still(yield* read(vm, 0)), still(interrupted))
        yield* write(vm, 0, before)
        assert.deepStrictEqual(still(yield* read(vm, 0)), still(before))
      }).pipe(onKvm()))

    it.live("one that KVM refuses changes nothing, whichever part it is", () =>
      Effect.gen(function*() {
        const vm = yield* boot([Guest.stop])
        yield* changesNothing(vm, (good) => {
          const { debug, events, general, special } = good
          // Something before the part that is refused differs, so that there is something to undo.
          const changed = { ...good, general: { ...general, rbx: 99n } }
          // The header says that there is state which no processor has.
          const unknownState = Uint8Array.from(good.xsave)
          unknownState[517] = 1
          return [
            [{ ...changed, special: { ...special, cr4: 1n << 40n } }, /"special".*old state again/],
            [{ ...changed, xsave: unknownState }, /"xsave".*old state again/],
            [{ ...changed, xcrs: [{ index: 0, value: 0n }] }, /"xcrs"/],
            [{ ...changed, debug: { ...debug, dr7: 1n << 40n } }, /"debug"/],
            [{ ...changed, msrs: [...good.msrs, { index: 0xdead, value: 1n }] }, /MSR 0xdead with value 0x1/],
            [{ ...changed, msrs: [{ index: 0x174, value: 5n }, { index: 0xdead, value: 0n }] }, /MSR 0xdead/],
            [{ ...changed, events: { ...events, exception: { vector: 2, isInjected: true } } }, /"events"/],
            [{ ...changed, xsave: new Uint8Array(8192) }, /XSAVE area has 8192 bytes/],
            [{ ...changed, general: { ...general, rax: -1n } }, /no VcpuSnapshot[^]*"rax"/]
          ]
        })
      }).pipe(onKvm()))

    it.live("one of a VM with a local APIC is refused where there is none, and one that waits for it", () =>
      Effect.gen(function*() {
        const vm = yield* boot([Guest.stop])
        yield* changesNothing(vm, (good) => [
          [{ ...good, localApic: new Uint8Array(1024) }, /interruptController: "Kernel"/],
          [{ ...good, activity: "Halted" }, /"activity"/]
        ])
      }).pipe(onKvm({ interruptController: "None" })))

    it.live("is refused while the VM runs, inside an instruction, after its end, and for what is not there", () =>
      Effect.gen(function*() {
        const snapshots = yield* VcpuSnapshots
        const waiting = yield* boot([[...Guest.inp(PORT), ...Guest.stop]])
        const good = yield* read(waiting, 0)
        yield* waiting.io.drain()
        const running = yield* waiting.start
        assert.include((yield* refusalOf(snapshots.read(waiting.id, 0))).message, "pause it first")
        assert.include((yield* refusalOf(snapshots.write(waiting.id, 0, good))).message, "pause it first")
        yield* untilAsked(waiting)
        const paused = yield* running.pause
        assert.include((yield* refusalOf(snapshots.read(waiting.id, 0))).message, "inside an instruction")
        assert.include((yield* refusalOf(snapshots.write(waiting.id, 0, good))).message, "inside an instruction")
        assert.include((yield* refusalOf(snapshots.read(waiting.id, 1))).message, "vCPUs 0 to 0")
        assert.include((yield* refusalOf(snapshots.read(99, 0))).message, "no such VM")
        const created = yield* paused.reset
        yield* snapshots.write(created.id, 0, good)

        const ended = yield* boot([Guest.stop])
        const before = yield* read(ended, 0)
        const life = yield* ended.start
        yield* life.ended
        const over = yield* life.pause
        yield* read(over, 0)
        assert.include((yield* refusalOf(write(over, 0, before))).message, "reset the VM")
      }).pipe(onKvm()))

    it.live("is told of setup: what a plain VMM sets, and all else as after reset", () =>
      Effect.gen(function*() {
        const vm = yield* boot([Guest.stop], 2)
        for (const [vcpu, { msrs, special, xsave }] of (yield* readAll(vm)).entries()) {
          const valueOf = (index: number) => msrs.find((msr) => msr.index === index)?.value
          assert.strictEqual(valueOf(0x1a0)! & 1n, 1n)
          assert.strictEqual(valueOf(0x2ff), 0x806n)
          assert.strictEqual(valueOf(0x277), 0x0007_0406_0007_0406n)
          for (const index of [0x174, 0x175, 0x176, 0xc000_0081, 0xc000_0082, 0xc000_0084, 0xc000_0102]) {
            assert.strictEqual(valueOf(index), 0n)
          }
          assert.deepStrictEqual([...xsave.subarray(0, 4)], [0x7f, 0x03, 0, 0])
          assert.strictEqual(special.apicBase, vcpu === 0 ? 0xfee0_0900n : 0xfee0_0800n)
        }
      }).pipe(onKvm()))

    it.live("a guest sees in CPUID which vCPU it is on, and a local APIC only where there is one", () =>
      Effect.gen(function*() {
        // mov eax, 1; cpuid; mov edi, data; mov [rdi], ebx; mov [rdi + 4], ecx; mov [rdi + 8], edx
        const askCpuid = (vcpu: number) =>
          code(
            [0xb8, 1, 0, 0, 0, 0x0f, 0xa2],
            [0xbf, 0, vcpu << 4, 0x03, 0],
            [0x89, 0x1f, 0x89, 0x4f, 0x04, 0x89, 0x57, 0x08],
            Guest.stop
          )
        const answers = (options: Kvm.KvmOptions) =>
          Effect.gen(function*() {
            const vm = yield* boot([askCpuid(0), askCpuid(1)])
            const before = yield* readAll(vm)
            const running = yield* vm.start
            assert.deepStrictEqual(yield* running.ended, { _tag: "Halted" })
            yield* running.pause
            const words = (vcpu: number) =>
              Effect.map(vm.memory.read(dataOf(vcpu), 12), (bytes) => new Uint32Array(bytes.slice().buffer))
            return { before, first: yield* words(0), second: yield* words(1) }
          }).pipe(onKvm(options))
        const apic = 1 << 9
        for (const cpu of ["Host", "Plain"] as const) {
          const kernel = yield* answers({ cpu })
          assert.deepStrictEqual([kernel.first[0]! >>> 16, kernel.second[0]! >>> 16], [0x0002, 0x0102])
          assert.notStrictEqual(kernel.first[2]! & apic, 0)
          const none = yield* answers({ cpu, interruptController: "None" })
          assert.strictEqual(none.first[2]! & apic, 0)
          assert.deepStrictEqual(none.before.map(({ special }) => special.apicBase & 0x800n), [0n, 0n])
        }
      }))

    it.live("a plain processor runs 64-bit code too", () =>
      Effect.gen(function*() {
        const vm = yield* boot([mixer(0, 3, PORT)])
        const { device } = yield* attachMixer(vm, 0)
        const running = yield* vm.start
        assert.deepStrictEqual(yield* running.ended, { _tag: "Halted" })
        assert.strictEqual(device.told[0]!.length, 3)
        assert.notStrictEqual(yield* vm.memory.read32(dataOf(0)), 0)
        yield* running.pause
      }).pipe(onKvm({ cpu: "Plain" })))

    it.live("registers that are set later go before a snapshot", () =>
      Effect.gen(function*() {
        const vm = yield* boot([[...store32(dataOf(0), 7), ...Guest.stop]])
        const good = yield* read(vm, 0)
        yield* write(vm, 0, { ...good, activity: "Halted", general: { ...good.general, rip: 0x8000n } })
        yield* vm.setRegisters(0, startOf(0))
        assert.deepStrictEqual(still(yield* read(vm, 0)), still(good))
        yield* write(vm, 0, { ...good, activity: "Uninitialized" })
        yield* vm.setRegisters(0, startOf(0))
        const running = yield* vm.start
        assert.deepStrictEqual(yield* running.ended, { _tag: "Halted" })
        assert.strictEqual(yield* vm.memory.read32(dataOf(0)), 7)
        yield* running.pause
      }).pipe(onKvm()))

    it.live("a vCPU that halts halts on in another VM", () =>
      Effect.gen(function*() {
        const vm = yield* boot([[...Guest.out(PORT, 1), ...Guest.stop]])
        const { device } = yield* attachMixer(vm, 0)
        const good = yield* read(vm, 0)
        yield* write(vm, 0, { ...good, activity: "Halted" })
        const running = yield* vm.start
        assert.deepStrictEqual(yield* running.ended, { _tag: "Halted" })
        assert.deepStrictEqual(device.told, [[]], "START let it go on")
        const paused = yield* running.pause
        const again = yield* paused.reset
        const second = yield* again.start
        assert.deepStrictEqual(yield* second.ended, { _tag: "Halted" })
        assert.deepStrictEqual(device.told, [[1]])
        yield* second.pause
      }).pipe(onKvm()))

    it.live("a task's priority outlives KVM_RUN without a local APIC, and not a reset", () =>
      Effect.gen(function*() {
        const vm = yield* boot([Guest.stop])
        const good = yield* read(vm, 0)
        yield* write(vm, 0, { ...good, special: { ...good.special, cr8: 9n } })
        const running = yield* vm.start
        yield* running.ended
        const paused = yield* running.pause
        assert.strictEqual((yield* read(paused, 0)).special.cr8, 9n)
        const again = yield* (yield* paused.reset).start
        yield* again.ended
        assert.strictEqual((yield* read(yield* again.pause, 0)).special.cr8, 0n)
      }).pipe(onKvm({ interruptController: "None" })))

    it.live("a rate that this KVM cannot give the counter is refused with the reason, or taken", () =>
      Effect.gen(function*() {
        const built = yield* Effect.result(Effect.void.pipe(onKvm({ tscKhz: 1_000_000 })))
        if (Result.isFailure(built)) {
          assert.instanceOf(built.failure, Kvm.KvmError)
          assert.include(built.failure.message, "tscKhz is 1000000 but must be left out")
        }
        const bad = yield* Effect.flip(Effect.void.pipe(onKvm({ tscKhz: 0 })))
        assert.include(bad.message, "tscKhz")
      }))
  }
)
