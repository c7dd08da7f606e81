/** RESET on KVM: of the life before nothing is left but memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { EndReason } from "../../../../src/domain/EndReason.ts"
import type { VcpuSnapshot } from "../../../../src/domain/VcpuSnapshot.ts"
import { IrqLines, VcpuSnapshots } from "../../../../src/services/Hypervisor.ts"
import type { PausedVm, RunningVm } from "../../../../src/services/Vm.ts"
import * as Guest from "../../../support/guest.ts"
import { kvmProblem } from "../../../support/kvm.ts"
import {
  boot,
  code,
  dataOf,
  onKvm,
  readAll,
  setCode,
  startOf,
  still,
  store32,
  touchFloatingPoint,
  tripleFault,
  untilAsked,
  writeDebug,
  writeMsr
} from "./longMode.ts"

const problem = kvmProblem()
const PORT = 0x100
const LINE = 4
const LOCAL_APIC = 0xfee0_0000
const WAKE_PAGE = 0x8000

/** Changes of a vCPU all that code can. */
const touchVcpu: Guest.Code = [
  ...touchFloatingPoint(dataOf(0) + 0x100),
  ...writeMsr(0x174, 0x77),
  ...writeMsr(0xc000_0081, 0x1234),
  ...writeMsr(0x277, 0x0007_0406),
  ...writeMsr(0x2ff, 0xc00),
  ...writeDebug(0, 0x1111),
  ...writeDebug(3, 0x3333)
]

/** Changes the chips: this local APIC, with an interrupt that waits in it; the 8259; and the other vCPU, by INIT and SIPI. */
const touchChips: Guest.Code = [
  ...store32(LOCAL_APIC + 0xf0, 0x1ff),
  ...store32(LOCAL_APIC + 0x80, 0x30),
  ...store32(LOCAL_APIC + 0x300, 0x4_0041),
  ...store32(LOCAL_APIC + 0x310, 1 << 24),
  ...store32(LOCAL_APIC + 0x300, 0x4500),
  ...store32(LOCAL_APIC + 0x300, 0x4600 | WAKE_PAGE >> 12),
  ...Guest.out(0x21, 0x5a)
]

/** Keeps the 8259's mask, and what interrupts it knows of. */
const tellChips: Guest.Code = code(
  [0xe4, 0x21], // in al, 0x21
  [0xbf, 0x00, 0x00, 0x03, 0x00], // mov edi, data
  [0x88, 0x07], // mov [rdi], al
  [0xb0, 0x0a, 0xe6, 0x20], // mov al, 10; out 0x20, al
  [0xe4, 0x20], // in al, 0x20
  [0x88, 0x47, 0x01], // mov [rdi + 1], al
  Guest.stop
)

// In the 8254, how counter 0 counts: bits 3..1 of the status that its read-back command latches.
const tellTimer: Guest.Code = code(
  [0xb0, 0xe2, 0xe6, 0x43], // mov al, 0xe2; out 0x43, al
  [0xe4, 0x40, 0x24, 0x0e], // in al, 0x40; and al, 14
  [0xbf, 0x00, 0x00, 0x03, 0x00], // mov edi, data
  [0x88, 0x07] // mov [rdi], al
)

const startTimer: Guest.Code = code(Guest.out(0x43, 0x34), Guest.out(0x40, 0x00), Guest.out(0x40, 0x10))

interface Life {
  readonly name: string
  /** How the first life of vCPU 0 goes out. */
  readonly last: Guest.Code
  readonly end: (running: RunningVm) => Effect.Effect<EndReason | undefined>
  readonly ends: EndReason["_tag"] | undefined
}

const lives: ReadonlyArray<Life> = [
  { name: "halted", last: Guest.stop, end: ({ ended }) => ended, ends: "Halted" },
  { name: "was shut down by a triple fault", last: tripleFault, end: ({ ended }) => ended, ends: "Shutdown" },
  {
    name: "waits inside an instruction",
    last: [...Guest.inp(PORT), ...Guest.stop],
    end: (running) => Effect.as(untilAsked(running), undefined),
    ends: undefined
  }
]

/** Runs the first life to its end, looks, and resets. */
const twoLives = (
  first: Guest.Code,
  { end, ends, last }: Life,
  look: (paused: PausedVm) => Effect.Effect<void, unknown, VcpuSnapshots>
) =>
  Effect.gen(function*() {
    const vm = yield* boot([[...first, ...last]], 2)
    const before = yield* readAll(vm)
    // HLT, and again if something wakes it.
    yield* Effect.orDie(vm.memory.write(WAKE_PAGE, Uint8Array.of(0xfa, 0xf4, 0xeb, 0xfc)))
    yield* vm.io.drain()
    const running = yield* vm.start
    const reason = yield* end(running)
    assert.strictEqual(reason?._tag, ends)
    const paused = yield* running.pause
    yield* Effect.orDie(look(paused))
    const created = yield* paused.reset
    return { created, before, after: yield* readAll(created) }
  })

const differ = (parts: ReadonlyArray<keyof VcpuSnapshot>, before: VcpuSnapshot, after: VcpuSnapshot) => {
  for (const part of parts) assert.notDeepEqual(after[part], before[part], `the first life left ${part} alone`)
}

describe.skipIf(problem !== undefined)(
  `RESET on KVM${problem === undefined ? "" : ` (skipped: ${problem})`}`,
  () => {
    for (const life of lives) {
      it.live.each(["Inline", "Worker"] as const)(
        `leaves nothing of a vCPU that ${life.name}, with the kernel's chips, placed %s`,
        (placement) =>
          Effect.gen(function*() {
            const lines = yield* IrqLines
            const { after, before, created } = yield* twoLives([...touchVcpu, ...touchChips], life, (paused) =>
              Effect.gen(function*() {
                lines.set(paused.id, LINE, true)
                const snapshots = yield* VcpuSnapshots
                const fresh = yield* Effect.orDie(snapshots.read(paused.id, 1))
                assert.notStrictEqual(fresh.activity, "Uninitialized", "the other vCPU was not woken")
                if (life.ends === undefined) {
                  return
                }
                const old = yield* Effect.orDie(snapshots.read(paused.id, 0))
                assert.strictEqual(
                  old.msrs.find(({ index }) =>
                    index === 0x174
                  )?.value,
                  0x77n
                )
                assert.strictEqual(old.localApic![0x220], 0x02, "no interrupt waits")
              }))
            assert.deepStrictEqual(after.map(still), before.map(still))
            yield* setCode(created, 0, tellChips)
            yield* created.setRegisters(0, startOf(0))
            const again = yield* created.start
            assert.deepStrictEqual(yield* again.ended, { _tag: "Halted" })
            assert.deepStrictEqual([...yield* created.memory.read(dataOf(0), 2)], [0, 0])
            yield* again.pause
          }).pipe(onKvm({ placement }))
      )

      it.live(`leaves nothing of a vCPU that ${life.name}, without chips`, () =>
        Effect.gen(function*() {
          const { after, before } = yield* twoLives(touchVcpu, life, (paused) =>
            Effect.gen(function*() {
              if (life.ends === undefined) return
              const [fresh, old] = [(yield* readAll(yield* boot([Guest.stop])))[0]!, (yield* readAll(paused))[0]!]
              differ(["general", "xsave", "msrs", "debug"], fresh, old)
            }) as Effect.Effect<void, unknown, VcpuSnapshots>)
          assert.deepStrictEqual(after.map(still), before.map(still))
        }).pipe(onKvm({ interruptController: "None" })))
    }

    it.live("stops the kernel's timer", () =>
      Effect.gen(function*() {
        const vm = yield* boot([[...tellTimer, ...startTimer, ...Guest.stop]])
        const first = yield* vm.start
        yield* first.ended
        const before = yield* vm.memory.read(dataOf(0), 1)
        assert.notStrictEqual(before[0], 2 << 1)
        const created = yield* (yield* first.pause).reset
        const second = yield* created.start
        yield* second.ended
        assert.deepStrictEqual(yield* created.memory.read(dataOf(0), 1), before)
        yield* second.pause
      }).pipe(onKvm({ timer: "Kernel" })))

    it.live("also takes back what a snapshot had put there", () =>
      Effect.gen(function*() {
        const snapshots = yield* VcpuSnapshots
        const vm = yield* boot([Guest.stop, [...store32(dataOf(1), 7), ...Guest.stop]])
        const before = yield* readAll(vm)
        const other = before[0]!
        yield* snapshots.write(vm.id, 1, before[1]!)
        yield* snapshots.write(vm.id, 0, {
          ...other,
          activity: "Halted",
          special: { ...other.special, cr8: 7n, cr2: 1n },
          events: {
            ...other.events,
            nmi: { pending: 2, isInjected: false, isMasked: true },
            isTripleFaultPending: true
          }
        })
        const paused = yield* vm.pause
        const created = yield* paused.reset
        assert.deepStrictEqual((yield* readAll(created)).map(still), before.map(still))
        const running = yield* created.start
        assert.deepStrictEqual(yield* running.ended, { _tag: "Halted" })
        assert.strictEqual(yield* created.memory.read32(dataOf(1)), 7, "START let a vCPU lie that was written once")
        yield* running.pause
      }).pipe(onKvm()))
  }
)
