/**
 * How figures are measured: a sample is long enough for the clock, samples of a thing and of its peer alternate
 * (A B A B ...), so that whatever else the machine does falls on both, and medians are what counts.
 */

/** Does a thing `iterations` times and tells how long that took, in nanoseconds. */
export type Sampler = (iterations: number) => Promise<number> | number

/**
 * Starts a clock of this thread's own processor time; the result tells the nanoseconds since then. Unlike the time on
 * the wall it does not count what other programs take. For work that never waits the two are the same on an idle
 * machine. It steps by a tick of the system, 4 ms or so, hence the length of samples.
 */
export const stopwatch = (): () => number => {
  const began = process.threadCpuUsage()
  return () => {
    const { system, user } = process.threadCpuUsage(began)
    return (system + user) * 1e3
  }
}

/** What something is compared with; measured in the same run. */
export interface Peer {
  readonly name: string
  readonly value: number
}

/**
 * `value` and the peer's are medians. `best` are the best samples of both, which a busy machine disturbs least.
 * `details` is whatever else a reader of the figure wants to know.
 */
export interface Measurement {
  readonly value: number
  readonly peer?: Peer | undefined
  readonly best?: { readonly value: number; readonly peer: number } | undefined
  readonly samples: ReadonlyArray<number>
  readonly details?: Readonly<Record<string, unknown>> | undefined
}

/** Why there is no value. */
export interface Skipped {
  readonly skipped: string
}

/** What the value, or the ratio of value and peer, should be at most (or, for a rate, at least). */
export interface Aim {
  readonly of: "value" | "ratio"
  readonly atMost?: number
  readonly atLeast?: number
}

/** One figure. `flags` are options that the child process that measures it needs. */
export interface Figure {
  readonly metric: string
  readonly unit: string
  readonly aim?: Aim
  readonly flags?: ReadonlyArray<string>
  readonly run: () => Promise<Measurement | Skipped>
}

export const median = (values: ReadonlyArray<number>): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

const MILLI = 1e6
const MAX_ITERATIONS = 2 ** 40

/** Doubles iterations until a sample lasts `millis`. It warms the code up, too. */
export const calibrate = async (sampler: Sampler, millis: number): Promise<number> => {
  let iterations = 1
  while (iterations < MAX_ITERATIONS && await sampler(iterations) < millis * MILLI) iterations *= 2
  return iterations
}

export interface Comparison {
  /** Nanoseconds an iteration, one for each sample. */
  readonly ours: ReadonlyArray<number>
  readonly theirs: ReadonlyArray<number>
}

/** For trying a figure out: values are of no use, but soon there. Set by the runner's `--quick`. */
export const QUICK = "UPCALL_BENCH_QUICK"

const lengths = QUICK in process.env ? { millis: 20, samples: 3 } : { millis: 100, samples: 11 }

/** Samples of ours and theirs in turns, each at least `millis` long. */
export const compare = async (
  ours: Sampler,
  theirs: Sampler,
  { millis, samples }: { readonly millis: number; readonly samples: number } = lengths
): Promise<Comparison> => {
  const counts = [await calibrate(ours, millis), await calibrate(theirs, millis)] as const
  const measured: { readonly ours: Array<number>; readonly theirs: Array<number> } = { ours: [], theirs: [] }
  for (let sample = 0; sample < samples; sample++) {
    measured.ours.push(await ours(counts[0]) / counts[0])
    measured.theirs.push(await theirs(counts[1]) / counts[1])
  }
  return measured
}

/** The medians of a comparison as a figure. */
export const measurement = (
  { ours, theirs }: Comparison,
  peer: string,
  { details, scale = 1 }: { readonly details?: Readonly<Record<string, unknown>>; readonly scale?: number } = {}
): Measurement => ({
  value: median(ours) * scale,
  peer: { name: peer, value: median(theirs) * scale },
  best: { value: Math.min(...ours) * scale, peer: Math.min(...theirs) * scale },
  samples: ours.map((sample) => sample * scale),
  details
})

const rounded = (value: number): number => Number(value.toPrecision(4))

/** The line of a figure: JSON, with four significant digits. */
export const line = (figure: Figure, measured: Measurement | Skipped): string => {
  const { aim, metric, unit } = figure
  if ("skipped" in measured) return JSON.stringify({ metric, skipped: measured.skipped })
  const { best, details, peer, samples, value } = measured
  const ratio = peer === undefined ? undefined : value / peer.value
  const judged = aim?.of === "ratio" ? ratio : value
  const met = aim === undefined || judged === undefined
    ? undefined
    : judged <= (aim.atMost ?? Infinity) && judged >= (aim.atLeast ?? -Infinity)
  return JSON.stringify({
    metric,
    value: rounded(value),
    unit,
    ...peer === undefined ? {} : { peer: { name: peer.name, value: rounded(peer.value) }, ratio: rounded(ratio!) },
    ...best === undefined ? {} : { best: { value: rounded(best.value), peer: rounded(best.peer) } },
    samples: samples.map(rounded),
    ...aim === undefined ? {} : { aim: { ...aim, met } },
    ...details
  })
}
