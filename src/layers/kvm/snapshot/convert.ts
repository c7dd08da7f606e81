/**
 * A vCPU's state from the kernel's structures to the words of `VcpuSnapshot`, and back.
 */
import * as Result from "effect/Result"
import type {
  NumberedRegister,
  PendingEvents,
  SegmentRegister,
  SpecialRegisters,
  VcpuActivity,
  VcpuSnapshot
} from "../../../domain/VcpuSnapshot.ts"
import { MAX_XCRS, Xcrs } from "../abi/FloatingPoint.ts"
import { DebugRegs, Regs, type Segment, Sregs } from "../abi/Registers.ts"
import { InterruptShadow, MpState, MpStateCode, VcpuEvents, VcpuEventsFlag } from "../abi/VcpuEvents.ts"
import type { RawState } from "./RawState.ts"

const ACTIVITIES: ReadonlyArray<readonly [code: number, activity: VcpuActivity]> = [
  [MpStateCode.RUNNABLE, "Running"],
  [MpStateCode.HALTED, "Halted"],
  [MpStateCode.UNINITIALIZED, "Uninitialized"],
  [MpStateCode.INIT_RECEIVED, "InitReceived"],
  [MpStateCode.SIPI_RECEIVED, "SipiReceived"],
  [MpStateCode.AP_RESET_HOLD, "ResetHold"]
]
const activityOf = new Map(ACTIVITIES)
const codeOf = new Map(ACTIVITIES.map(([code, activity]) => [activity, code]))

/** What the kernel told, as a snapshot. The kernel's structures are well-formed; what they hold need not be. */
export const snapshotOf = (raw: RawState): VcpuSnapshot => {
  const { interruptBitmap: _, ...special } = Result.getOrThrow(Sregs.decode(raw.special))
  const debug = Result.getOrThrow(DebugRegs.decode(raw.debug))
  const { mpState } = Result.getOrThrow(MpState.decode(raw.activity))
  return {
    activity: activityOf.get(mpState) ?? "Running",
    general: Result.getOrThrow(Regs.decode(raw.general)),
    special: {
      ...special,
      cs: segmentOf(special.cs),
      ds: segmentOf(special.ds),
      es: segmentOf(special.es),
      fs: segmentOf(special.fs),
      gs: segmentOf(special.gs),
      ss: segmentOf(special.ss),
      tr: segmentOf(special.tr),
      ldt: segmentOf(special.ldt)
    },
    xsave: raw.xsave,
    xcrs: raw.xcrs === undefined ? [] : xcrsOf(raw.xcrs),
    debug: { addresses: [debug.db[0]!, debug.db[1]!, debug.db[2]!, debug.db[3]!], dr6: debug.dr6, dr7: debug.dr7 },
    msrs: raw.msrs.map(({ data, index }) => ({ index, value: data })),
    tsc: raw.tsc ?? 0n,
    ...(raw.localApic === undefined ? {} : { localApic: raw.localApic }),
    events: eventsOf(Result.getOrThrow(VcpuEvents.decode(raw.events)))
  }
}

/**
 * The kernel's structures for a snapshot, on a vCPU whose state is `before`; or why it can have no such state. Values
 * that do not fit are the schema's to refuse.
 */
export const rawOf = (snapshot: VcpuSnapshot, before: RawState): RawState | string => {
  const { events, special, xcrs, xsave } = snapshot
  if (xsave.length !== before.xsave.length) {
    return `its XSAVE area has ${xsave.length} bytes and this KVM's has ${before.xsave.length}; ` +
      "take it to a machine like the one it was made on"
  }
  if ((snapshot.localApic === undefined) !== (before.localApic === undefined)) {
    return snapshot.localApic === undefined
      ? "it has no local APIC and this VM has; build the layer with interruptController: \"None\""
      : "it has a local APIC and this VM has none; build the layer with interruptController: \"Kernel\""
  }
  if (before.xcrs === undefined ? xcrs.length > 0 : xcrs.length > MAX_XCRS) {
    return `it has ${xcrs.length} extended control registers, more than this KVM`
  }
  const { flags } = Result.getOrThrow(VcpuEvents.decode(before.events))
  const unknown = unknownEvent(events, flags)
  if (unknown !== undefined) return `it has ${unknown}, which this KVM does not let be set; update the kernel`
  return {
    special: Result.getOrThrow(Sregs.encode(sregsOf(special))),
    general: Result.getOrThrow(Regs.encode(snapshot.general)),
    xsave,
    xcrs: before.xcrs === undefined ? undefined : encodeXcrs(xcrs),
    debug: Result.getOrThrow(
      DebugRegs.encode({ db: snapshot.debug.addresses, dr6: snapshot.debug.dr6, dr7: snapshot.debug.dr7, flags: 0n })
    ),
    localApic: snapshot.localApic,
    msrs: snapshot.msrs.map(({ index, value }) => ({ index, data: value })),
    tsc: snapshot.tsc,
    activity: Result.getOrThrow(MpState.encode({ mpState: codeOf.get(snapshot.activity)! })),
    events: encodeEvents(events, flags)
  }
}

const segmentOf = (segment: Segment): SegmentRegister => ({
  selector: segment.selector,
  base: segment.base,
  limit: segment.limit,
  type: segment.type,
  privilege: segment.dpl,
  isCodeOrData: segment.s !== 0,
  isPresent: segment.present !== 0,
  isAvailable: segment.avl !== 0,
  isLong: segment.l !== 0,
  isBig: segment.db !== 0,
  isGranular: segment.g !== 0,
  isUnusable: segment.unusable !== 0
})

const encodedSegment = (segment: SegmentRegister): Segment => ({
  selector: segment.selector,
  base: segment.base,
  limit: segment.limit,
  type: segment.type,
  dpl: segment.privilege,
  s: Number(segment.isCodeOrData),
  present: Number(segment.isPresent),
  avl: Number(segment.isAvailable),
  l: Number(segment.isLong),
  db: Number(segment.isBig),
  g: Number(segment.isGranular),
  unusable: Number(segment.isUnusable)
})

const sregsOf = (special: SpecialRegisters): Sregs => ({
  ...special,
  cs: encodedSegment(special.cs),
  ds: encodedSegment(special.ds),
  es: encodedSegment(special.es),
  fs: encodedSegment(special.fs),
  gs: encodedSegment(special.gs),
  ss: encodedSegment(special.ss),
  tr: encodedSegment(special.tr),
  ldt: encodedSegment(special.ldt),
  // The same interrupt is among the events, which are written last.
  interruptBitmap: [0n, 0n, 0n, 0n]
})

const xcrsOf = (bytes: Uint8Array): ReadonlyArray<NumberedRegister> => {
  const { nrXcrs, xcrs } = Result.getOrThrow(Xcrs.decode(bytes))
  return xcrs.slice(0, nrXcrs).map(({ value, xcr }) => ({ index: xcr, value }))
}

const encodeXcrs = (registers: ReadonlyArray<NumberedRegister>): Uint8Array =>
  Result.getOrThrow(Xcrs.encode({
    nrXcrs: registers.length,
    flags: 0,
    xcrs: Array.from({ length: MAX_XCRS }, (_, at) => ({
      xcr: registers[at]?.index ?? 0,
      value: registers[at]?.value ?? 0n
    }))
  }))

const eventsOf = ({ exception, exceptionHasPayload, exceptionPayload, ...events }: VcpuEvents): PendingEvents => ({
  ...(exception.injected === 0 && exception.pending === 0 ? {} : {
    exception: {
      vector: exception.nr,
      isInjected: exception.injected !== 0,
      ...(exception.hasErrorCode === 0 ? {} : { errorCode: exception.errorCode }),
      ...(exceptionHasPayload === 0 ? {} : { payload: exceptionPayload })
    }
  }),
  ...(events.interrupt.injected === 0 ? {} : {
    interrupt: { vector: events.interrupt.nr, isSoftware: events.interrupt.soft !== 0 }
  }),
  shadow: {
    isAfterMovSs: (events.interrupt.shadow & InterruptShadow.INT_MOV_SS) !== 0,
    isAfterSti: (events.interrupt.shadow & InterruptShadow.INT_STI) !== 0
  },
  nmi: {
    pending: events.nmi.pending,
    isInjected: events.nmi.injected !== 0,
    isMasked: events.nmi.masked !== 0
  },
  smm: {
    isInside: events.smi.smm !== 0,
    isPending: events.smi.pending !== 0,
    isInsideNmi: events.smi.smmInsideNmi !== 0,
    isInitLatched: events.smi.latchedInit !== 0
  },
  isTripleFaultPending: events.tripleFault.pending !== 0
})

/** What of the events the kernel's flags say that it does not know. */
const unknownEvent = ({ exception, isTripleFaultPending, smm }: PendingEvents, flags: number): string | undefined => {
  const has = (flag: number) => (flags & flag) !== 0
  if (exception?.payload !== undefined && !has(VcpuEventsFlag.PAYLOAD)) return "an exception with a payload"
  if (isTripleFaultPending && !has(VcpuEventsFlag.TRIPLE_FAULT)) return "a triple fault that is pending"
  const isSmm = smm.isInside || smm.isPending || smm.isInsideNmi || smm.isInitLatched
  return isSmm && !has(VcpuEventsFlag.SMM) ? "system management mode" : undefined
}

const encodeEvents = (events: PendingEvents, flags: number): Uint8Array => {
  const { exception, interrupt, nmi, shadow, smm } = events
  return Result.getOrThrow(VcpuEvents.encode({
    exception: {
      injected: Number(exception?.isInjected === true),
      pending: Number(exception?.isInjected === false),
      nr: exception?.vector ?? 0,
      hasErrorCode: Number(exception?.errorCode !== undefined),
      errorCode: exception?.errorCode ?? 0
    },
    interrupt: {
      injected: Number(interrupt !== undefined),
      nr: interrupt?.vector ?? 0,
      soft: Number(interrupt?.isSoftware === true),
      shadow: (shadow.isAfterMovSs ? InterruptShadow.INT_MOV_SS : 0) | (shadow.isAfterSti ? InterruptShadow.INT_STI : 0)
    },
    nmi: { injected: Number(nmi.isInjected), pending: nmi.pending, masked: Number(nmi.isMasked) },
    sipiVector: 0,
    flags: flags & ~VcpuEventsFlag.SIPI_VECTOR,
    smi: {
      smm: Number(smm.isInside),
      pending: Number(smm.isPending),
      smmInsideNmi: Number(smm.isInsideNmi),
      latchedInit: Number(smm.isInitLatched)
    },
    tripleFault: { pending: Number(events.isTripleFaultPending) },
    exceptionHasPayload: Number(exception?.payload !== undefined),
    exceptionPayload: exception?.payload ?? 0n
  }))
}
