/**
 * How often each client of a VM is asked, and how long it takes to answer, as Effect metrics: a counter and a histogram
 * per client, with the attributes `vm` and `client`.
 *
 * What is measured is kept in plain numbers and given to the metrics in batches, so a request pays for two readings of a
 * clock and a few additions. A VM that is not observed pays nothing.
 *
 * The metrics are in the registry like any other (`Metric.snapshot`, or an exporter of `effect/observability`). One
 * client's are read by its attributes. A histogram's buckets are cumulative: each tells how many requests took at most
 * its boundary, in nanoseconds.
 *
 * **Example** (Counting what a device is asked)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Metric from "effect/Metric"
 * import { IoMetrics, IoRange } from "upcall"
 * import { TestMachine } from "upcall/testing"
 *
 * const program = Effect.gen(function*() {
 *   const { portRead, vm } = yield* TestMachine.make()
 *   yield* vm.io.register({ name: "sensor", ranges: [IoRange.ports(0x60, 0x60)], handle: () => Effect.succeed(7) })
 *   yield* Effect.scoped(Effect.gen(function*() {
 *     yield* IoMetrics.observe(vm)
 *     yield* portRead(0x60, 1)
 *     yield* portRead(0x60, 1)
 *   }))
 *   const sensor = { vm: vm.name, client: "sensor" }
 *   const requests = yield* Metric.value(Metric.withAttributes(IoMetrics.requests, sensor))
 *   const latency = yield* Metric.value(Metric.withAttributes(IoMetrics.latency, sensor))
 *   return [requests.count, latency.count]
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program)))
 * // => [ 2, 2 ]
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { MAX_VCPUS } from "../domain/Limits.ts"
import { INTERVAL, isInterval, millisOf } from "./dispatch/interval.ts"
import type { IoDispatcher, RequestObserver } from "./IoDispatcher.ts"

// Powers of two from 128 ns, about the least that a request takes, to 8.6 s; what takes longer is in the last bucket.
const FIRST_BOUNDARY = 128
const BOUNDARIES = 27
const BUCKETS = BOUNDARIES + 1
const LAST_BOUNDARY = FIRST_BOUNDARY * 2 ** (BOUNDARIES - 1)

type Attributes = Metric.Metric.AttributeSet

const makeRequests = (attributes: Attributes) =>
  Metric.counter("upcall_io_requests", {
    description: "I/O requests of a VM's vCPUs, by the client that they were given to",
    incremental: true,
    attributes
  })

const makeLatency = (attributes: Attributes) =>
  Metric.histogram("upcall_io_request_nanos", {
    description: "Nanoseconds from the dispatch of an I/O request to its completion",
    boundaries: Metric.exponentialBoundaries({ start: FIRST_BOUNDARY, factor: 2, count: BUCKETS }),
    attributes
  })

/**
 * Requests that were given to a client; `(nobody)` is the client of those that no range holds.
 *
 * @category metrics
 * @since 0.1.0
 */
export const requests: Metric.Counter<number> = makeRequests({})

/**
 * Nanoseconds from a request's dispatch to its completion, in buckets of powers of two from 128 ns to 8.6 s. A request
 * that is never completed (the VM was reset, or the page was foreign) is not in it. One that the dispatcher answers
 * itself, for want of a client, takes about nothing.
 *
 * @category metrics
 * @since 0.1.0
 */
export const latency: Metric.Histogram<number> = makeLatency({})

/**
 * - `every`: how often what was measured is given to the metrics, by the Clock of the program that observes: a positive,
 *   finite duration, default 100 ms. The last time is when the scope closes.
 * - `clock`: what latencies are measured by; default the program's Clock. With `vm.machine.time.clock` they are in
 *   guest time, which is reproducible where guest time is virtual; there a handler that answers at once takes none.
 *
 * @category models
 * @since 0.1.0
 */
export interface IoMetricsOptions {
  readonly every?: Duration.Input
  readonly clock?: Clock.Clock
}

/**
 * `BadInterval`: `every` is not a positive, finite duration; nothing is observed.
 *
 * @category errors
 * @since 0.1.0
 */
export const IoMetricsErrorReason = Schema.TaggedUnion({ BadInterval: { everyMs: Schema.Number } })

/**
 * @category errors
 * @since 0.1.0
 */
export type IoMetricsErrorReason = typeof IoMetricsErrorReason.Type

/**
 * A VM that could not be observed.
 *
 * @category errors
 * @since 0.1.0
 */
export class IoMetricsError
  extends Schema.TaggedError<IoMetricsError>()("IoMetricsError", { reason: IoMetricsErrorReason })
{
  override get message(): string {
    return `metrics cannot be flushed every ${this.reason.everyMs} ms; give ${INTERVAL}`
  }
}

const DEFAULT_EVERY = "100 millis"

/**
 * Measures a VM's requests until the scope closes. Fails with `BadInterval` when `every` is none.
 *
 * @category constructors
 * @since 0.1.0
 */
export const observe = (
  vm: { readonly name: string; readonly io: IoDispatcher["Service"] },
  options: IoMetricsOptions = {}
): Effect.Effect<void, IoMetricsError, Scope.Scope> =>
  Effect.gen(function*() {
    const everyMs = millisOf(options.every ?? DEFAULT_EVERY)
    if (!isInterval(everyMs)) return yield* new IoMetricsError({ reason: { _tag: "BadInterval", everyMs } })
    const measured = new Measured(vm.name, options.clock ?? (yield* Clock.Clock), yield* Effect.context())
    const flush = Effect.sync(() => measured.flush())
    // Scopes close in reverse: nothing is measured any more when the last batch goes.
    yield* Effect.addFinalizer(() => flush)
    yield* vm.io.observe(measured.observer)
    yield* Effect.sleep(everyMs).pipe(
      Effect.andThen(flush),
      Effect.forever,
      Effect.forkScoped({ startImmediately: true })
    )
  })

/** One VM's numbers since the last flush. */
class Measured {
  readonly observer: RequestObserver
  private readonly clients = new Map<string, ClientFigures>()
  private readonly vm: string
  private readonly context: Context.Context<never>
  // A vCPU waits for its request, so it has one at a time.
  private readonly asked: Array<ClientFigures | undefined> = Array.from({ length: MAX_VCPUS }, () => undefined)
  private readonly askedAt = new Float64Array(MAX_VCPUS)

  constructor(vm: string, clock: Clock.Clock, context: Context.Context<never>) {
    this.vm = vm
    this.context = context
    const now = () => Number(clock.monotonicTimeNanosUnsafe())
    this.observer = {
      onRequest: (client, { vcpu }) => {
        const figures = this.of(client)
        figures.requests++
        this.asked[vcpu] = figures
        this.askedAt[vcpu] = now()
      },
      onComplete: (_client, { vcpu }) => {
        this.asked[vcpu]?.record(now() - this.askedAt[vcpu]!)
      }
    }
  }

  flush(): void {
    for (const figures of this.clients.values()) figures.flush(this.context)
  }

  private of(client: string): ClientFigures {
    let figures = this.clients.get(client)
    if (figures === undefined) {
      figures = new ClientFigures({ vm: this.vm, client })
      this.clients.set(client, figures)
    }
    return figures
  }
}

/** One client's numbers since the last flush: per bucket how many latencies, and their sum. */
class ClientFigures {
  requests = 0
  private count = 0
  private least = Infinity
  private most = 0
  private readonly counts = new Float64Array(BUCKETS)
  private readonly sums = new Float64Array(BUCKETS)
  // Metrics with the attributes in them: `withAttributes` would look its series up anew for each value.
  private readonly requestsMetric: Metric.Counter<number>
  private readonly latencyMetric: Metric.Histogram<number>

  constructor(attributes: Attributes) {
    this.requestsMetric = makeRequests(attributes)
    this.latencyMetric = makeLatency(attributes)
  }

  record(nanos: number): void {
    const bucket = bucketOf(nanos)
    this.counts[bucket]!++
    this.sums[bucket]! += nanos
    this.count++
    if (nanos < this.least) this.least = nanos
    if (nanos > this.most) this.most = nanos
  }

  flush(context: Context.Context<never>): void {
    if (this.requests > 0) this.requestsMetric.updateUnsafe(this.requests, context)
    this.requests = 0
    if (this.count > 0) this.flushLatencies((nanos) => this.latencyMetric.updateUnsafe(nanos, context))
  }

  /** A histogram takes single values: as many as there were, with the same buckets, sum, least and most. */
  private flushLatencies(update: (nanos: number) => void): void {
    const extremes = this.count > 1 ? [this.least, this.most] : [this.least]
    for (const nanos of extremes) {
      const bucket = bucketOf(nanos)
      this.counts[bucket]!--
      this.sums[bucket]! -= nanos
      update(nanos)
    }
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const count = this.counts[bucket]!
      if (count === 0) continue
      const sum = this.sums[bucket]!
      const mean = Math.floor(sum / count)
      const above = sum - mean * count
      for (let i = 0; i < count; i++) update(i < above ? mean + 1 : mean)
    }
    this.counts.fill(0)
    this.sums.fill(0)
    this.count = 0
    this.least = Infinity
    this.most = 0
  }
}

/** Which bucket holds a latency: the first one whose boundary is not below it. */
const bucketOf = (nanos: number): number =>
  nanos > LAST_BOUNDARY ? BOUNDARIES : 32 - Math.clz32(Math.ceil(nanos / FIRST_BOUNDARY) - 1)
