/** Snapshots in the kernel's structures and back, without a kernel. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import type { VcpuSnapshot } from "../../../../src/domain/VcpuSnapshot.ts"
import { MAX_XCRS } from "../../../../src/layers/kvm/abi/FloatingPoint.ts"
import { VcpuEvents, VcpuEventsFlag } from "../../../../src/layers/kvm/abi/VcpuEvents.ts"
import { rawOf, snapshotOf } from "../../../../src/layers/kvm/snapshot/convert.ts"
import type { RawState } from "../../../../src/layers/kvm/snapshot/RawState.ts"
import { snapshots } from "../../../support/vcpuSnapshots.ts"

const XSAVE_BYTES = 4096
const KNOWN = VcpuEventsFlag.NMI_PENDING | VcpuEventsFlag.SHADOW | VcpuEventsFlag.SMM | VcpuEventsFlag.PAYLOAD |
  VcpuEventsFlag.TRIPLE_FAULT

const events = (flags: number): Uint8Array => {
  const blank = Result.getOrThrow(VcpuEvents.decode(new Uint8Array(VcpuEvents.size)))
  return Result.getOrThrow(VcpuEvents.encode({ ...blank, flags }))
}

/** A vCPU as it was before; only the shape of its parts counts. */
const before = (
  { flags = KNOWN, hasLocalApic = true, hasXcrs = true }: {
    readonly flags?: number
    readonly hasLocalApic?: boolean
    readonly hasXcrs?: boolean
  } = {}
): RawState => ({
  special: new Uint8Array(),
  general: new Uint8Array(),
  xsave: new Uint8Array(XSAVE_BYTES),
  xcrs: hasXcrs ? new Uint8Array() : undefined,
  debug: new Uint8Array(),
  localApic: hasLocalApic ? new Uint8Array() : undefined,
  msrs: [],
  tsc: 0n,
  activity: new Uint8Array(),
  events: events(flags)
})

const fitting = (snapshot: VcpuSnapshot) => before({ hasLocalApic: snapshot.localApic !== undefined })

const quiet = (snapshot: VcpuSnapshot): VcpuSnapshot => ({
  ...snapshot,
  xcrs: [],
  events: {
    shadow: { isAfterMovSs: false, isAfterSti: false },
    nmi: { pending: 0, isInjected: false, isMasked: false },
    smm: { isInside: false, isPending: false, isInsideNmi: false, isInitLatched: false },
    isTripleFaultPending: false
  }
})

const problemOf = (raw: RawState | string): string => typeof raw === "string" ? raw : "none"

describe("a vCPU's state in the kernel's structures", () => {
  it.prop("comes back as it was", [snapshots(XSAVE_BYTES)], ([snapshot]) => {
    const raw = rawOf(snapshot, fitting(snapshot))
    if (snapshot.xcrs.length > MAX_XCRS) return assert.include(problemOf(raw), "extended control registers")
    if (typeof raw === "string") return assert.fail(raw)
    assert.deepStrictEqual(snapshotOf(raw), snapshot)
  })

  it.prop("is refused when this KVM or this VM has no place for it", [snapshots(XSAVE_BYTES)], ([any]) => {
    const snapshot = quiet(any)
    const apic = snapshot.localApic !== undefined
    assert.isObject(rawOf(snapshot, before({ flags: 0, hasLocalApic: apic, hasXcrs: false })))
    const refusals: ReadonlyArray<readonly [RawState | string, RegExp]> = [
      [rawOf({ ...snapshot, xsave: new Uint8Array(XSAVE_BYTES + 64) }, fitting(snapshot)), /XSAVE area has 4160 bytes/],
      [rawOf(snapshot, before({ hasLocalApic: !apic })), /interruptController: "(None|Kernel)"/],
      [
        rawOf({ ...snapshot, xcrs: [{ index: 0, value: 1n }] }, before({ hasLocalApic: apic, hasXcrs: false })),
        /1 extended control registers/
      ]
    ]
    for (const [raw, expected] of refusals) assert.match(problemOf(raw), expected)
    const { events: calm } = snapshot
    const unknown: ReadonlyArray<VcpuSnapshot["events"]> = [
      { ...calm, isTripleFaultPending: true },
      { ...calm, smm: { ...calm.smm, isInitLatched: true } },
      { ...calm, exception: { vector: 14, isInjected: false, payload: 5n } }
    ]
    for (const told of unknown) {
      assert.isObject(rawOf({ ...snapshot, events: told }, fitting(snapshot)))
      const raw = rawOf({ ...snapshot, events: told }, before({ flags: VcpuEventsFlag.SHADOW, hasLocalApic: apic }))
      assert.match(problemOf(raw), /does not let be set/)
    }
  })
})
