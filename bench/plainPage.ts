/**
 * The same trip as ours without Effect and without a hypervisor: what the protocol itself costs in plain JavaScript.
 *
 * One page of shared words, the same states with Atomics, a copy of the request, a table of ports, plain functions.
 */

const WORDS = 1024
const SLOT_WORDS = 64
const POLLING = 1
const DIRECTION = 16
const ADDRESS = 18
const SIZE = 20
const VALUE = 22
const STATE = 34
const PENDING = 0
const COMPLETE = 1
const PROCESSING = 2
const FREE = 3

export type PlainHandler = (port: number) => number
export type PlainAsyncHandler = (port: number) => Promise<number>

export interface PlainRange<Handler> {
  readonly start: number
  readonly end: number
  readonly handler: Handler
}

/** The half of a plain trip that both kinds of handler share. */
class Page<Handler> {
  readonly words = new Int32Array(new SharedArrayBuffer(4 * WORDS))
  readonly copy = new Int32Array(SLOT_WORDS)
  readonly table: Array<PlainRange<Handler> | undefined> = Array.from({ length: 0x1_0000 }, () => undefined)
  isNotified = false

  constructor(ranges: ReadonlyArray<PlainRange<Handler>>) {
    this.words[STATE] = FREE
    for (const range of ranges) {
      for (let port = range.start; port <= range.end; port++) this.table[port] = range
    }
  }

  /** The vCPU's side: the request, PENDING last. */
  submit(port: number): void {
    const words = this.words
    words[POLLING] = 0
    words[DIRECTION] = 0
    words[ADDRESS] = port
    words[SIZE] = 1
    this.isNotified = false
    Atomics.store(words, STATE, PENDING)
  }

  /** The Service VM's side: looks once, checks, claims. */
  claim(): PlainRange<Handler> {
    const { copy, words } = this
    if (Atomics.load(words, STATE) !== PENDING) throw new Error("not pending")
    for (let i = 0; i < 2; i++) copy[i] = words[i]!
    for (let i = 16; i < 27; i++) copy[i] = words[i]!
    const port = copy[ADDRESS]!
    const size = copy[SIZE]!
    if (copy[DIRECTION] !== 0 || (size !== 1 && size !== 2 && size !== 4)) throw new Error("malformed")
    const range = this.table[port]
    if (range === undefined || port + size - 1 > range.end) throw new Error("unhandled")
    Atomics.store(words, STATE, PROCESSING)
    return range
  }

  complete(value: number): void {
    const words = this.words
    if (Atomics.load(words, STATE) !== PROCESSING) throw new Error("foreign")
    Atomics.store(words, VALUE, value & 0xff)
    Atomics.store(words, STATE, COMPLETE)
    this.isNotified = true
  }

  take(): number {
    const words = this.words
    if (!this.isNotified || Atomics.load(words, STATE) !== COMPLETE) throw new Error("no answer")
    const value = Atomics.load(words, VALUE)
    Atomics.store(words, STATE, FREE)
    return value
  }
}

/** A read of one byte from a port, from submitting to freeing the slot. */
export const plainTrip = (ranges: ReadonlyArray<PlainRange<PlainHandler>>): (port: number) => number => {
  const page = new Page(ranges)
  return (port) => {
    page.submit(port)
    page.complete(page.claim().handler(page.copy[ADDRESS]!))
    return page.take()
  }
}

/** The same with handlers that answer later: the vCPU goes on once the promise of an answer was kept. */
export const plainAsyncTrip = (
  ranges: ReadonlyArray<PlainRange<PlainAsyncHandler>>
): (port: number) => Promise<number> => {
  const page = new Page(ranges)
  return (port) => {
    page.submit(port)
    return page.claim().handler(page.copy[ADDRESS]!).then((value) => {
      page.complete(value)
      return page.take()
    })
  }
}
