/**
 * What happened in a VM: requests and how long each client took, the steps of the VM's life, and its end.
 *
 * Latency is from the dispatcher's reading of a request to its completion, in nanoseconds of host time; it includes the
 * clock's own cost of some tens of nanoseconds.
 */
import type { IoRequest } from "../domain/IoRequest.ts"
import { MAX_VCPUS } from "../domain/Limits.ts"
import type { VmTransition } from "../domain/VmState.ts"
import type { RequestObserver } from "../services/IoDispatcher.ts"
import { Histogram } from "./Histogram.ts"
import * as Table from "./Table.ts"

/** One client's figures; latencies in nanoseconds. */
export interface ClientStats {
  readonly client: string
  readonly requests: number
  readonly reads: number
  readonly writes: number
  readonly p50: number
  readonly p99: number
  readonly max: number
}

interface Counters {
  reads: number
  writes: number
  readonly latency: Histogram
}

const isRead = (request: IoRequest): boolean => !("value" in request)

/** Counts the requests that it observes. `now` gives nanoseconds from any start, and never goes back. */
export class Stats {
  readonly observer: RequestObserver
  private readonly clients = new Map<string, Counters>()
  // A vCPU waits for its request, so it has one at a time.
  private readonly startedAt = new Float64Array(MAX_VCPUS)

  constructor(now: () => number) {
    this.observer = {
      onRequest: (client, request) => {
        const counters = this.of(client)
        if (isRead(request)) counters.reads++
        else counters.writes++
        this.startedAt[request.vcpu] = now()
      },
      onComplete: (client, request) => this.of(client).latency.record(now() - this.startedAt[request.vcpu]!)
    }
  }

  /** The clients that were asked, the busiest first. */
  get perClient(): ReadonlyArray<ClientStats> {
    return [...this.clients].map(([client, { latency, reads, writes }]) => ({
      client,
      requests: reads + writes,
      reads,
      writes,
      p50: latency.quantile(0.5),
      p99: latency.quantile(0.99),
      max: latency.max
    })).toSorted((a, b) => b.requests - a.requests)
  }

  private of(client: string): Counters {
    let counters = this.clients.get(client)
    if (counters === undefined) {
      counters = { reads: 0, writes: 0, latency: new Histogram() }
      this.clients.set(client, counters)
    }
    return counters
  }
}

const count = (value: number): string => value.toLocaleString("en-US")

/** A duration with three digits at most: `950 ns`, `1.25 us`, `3.1 ms`. */
export const formatNanos = (nanos: number): string => {
  for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["us", 1e3]] as const) {
    // What would round up to 1000 of the smaller unit is one of the larger.
    if (nanos >= size * 0.9995) return `${Number((nanos / size).toPrecision(3))} ${unit}`
  }
  return `${Math.round(nanos)} ns`
}

/** Requests by client, as a table with a line for the sum. */
export const formatClients = (clients: ReadonlyArray<ClientStats>): string => {
  const sum = (pick: (stats: ClientStats) => number): number => clients.reduce((total, each) => total + pick(each), 0)
  return Table.format(
    [
      { title: "client", align: "left" },
      { title: "requests", align: "right" },
      { title: "reads", align: "right" },
      { title: "writes", align: "right" },
      { title: "p50", align: "right" },
      { title: "p99", align: "right" },
      { title: "max", align: "right" }
    ],
    [
      ...clients.map((each) => [
        each.client,
        count(each.requests),
        count(each.reads),
        count(each.writes),
        ...[each.p50, each.p99, each.max].map(formatNanos)
      ]),
      ["all", count(sum((each) => each.requests)), count(sum((each) => each.reads)), count(sum((each) => each.writes))]
    ]
  )
}

/** The steps of a VM's life on one line: `Created -Start-> Running -Pause-> Paused -Destroy-> Destroyed`. */
export const formatTransitions = (transitions: ReadonlyArray<VmTransition>): string =>
  transitions.length === 0
    ? "none"
    : transitions[0]!.from._tag + transitions.map(({ command, to }) => ` -${command}-> ${to._tag}`).join("")

/** Everything, for people. `outcome` is one sentence about the end. */
export const format = (report: {
  readonly clients: ReadonlyArray<ClientStats>
  readonly transitions: ReadonlyArray<VmTransition>
  readonly outcome: string
  readonly millis: number
}): string =>
  [
    formatClients(report.clients),
    "",
    `life  ${formatTransitions(report.transitions)}`,
    `end   ${report.outcome}`,
    `time  ${formatNanos(report.millis * 1e6)}`
  ].join("\n")
