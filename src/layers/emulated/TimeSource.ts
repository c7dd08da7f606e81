/**
 * The two sources of guest time: instructions, and the host.
 */

/** A source of guest time in nanoseconds since the VM was created. It never goes back. */
export interface TimeSource {
  readonly isVirtual: boolean
  readonly nowNs: () => number
  /** Lets an idle guest's time pass: at once where time is virtual, not at all where it passes by itself. */
  readonly skipTo: (ns: number) => void
  /** Stops and restarts time around a pause. */
  readonly freeze: () => void
  readonly thaw: () => void
}

const NANOS_PER_MILLI = 1_000_000
// 500 million instructions a second: near what compiled guest code reaches, so guest delays last about their time.
const NANOS_PER_INSTRUCTION = 2

/** Time that depends on the guest alone: its instructions, and the idle time that was skipped. */
export const virtualTime = (instructions: () => number): TimeSource => {
  let skipped = 0
  const nowNs = () => instructions() * NANOS_PER_INSTRUCTION + skipped
  return {
    isVirtual: true,
    nowNs,
    skipTo: (ns) => {
      skipped += Math.max(0, ns - nowNs())
    },
    freeze: () => undefined,
    thaw: () => undefined
  }
}

/** The host's time while the VM runs. `hostMs` gives milliseconds with fractions. */
export const realTime = (hostMs: () => number): TimeSource => {
  let origin = hostMs()
  let frozenAt: number | undefined = origin
  const nowNs = () => ((frozenAt ?? hostMs()) - origin) * NANOS_PER_MILLI
  return {
    isVirtual: false,
    nowNs,
    skipTo: () => undefined,
    freeze: () => {
      frozenAt ??= hostMs()
    },
    thaw: () => {
      if (frozenAt === undefined) return
      origin += hostMs() - frozenAt
      frozenAt = undefined
    }
  }
}
