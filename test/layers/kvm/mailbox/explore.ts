/**
 * Every state that a model can come to, each visited once: complete, not sampled. What a model does next is a function of
 * its state alone.
 *
 * A model that cannot go on must be done, and no state may be come to again: so every order of moves comes to its end,
 * and there is no order in which somebody tries without end.
 */

/** Something that some actor may do next. */
export interface Move {
  readonly name: string
  /** Nothing says that it comes soon, or at all: what others wait for may not depend on it. */
  readonly isOptional: boolean
  readonly take: () => void
}

export interface Model {
  /** Objects whose numbers and booleans, also in objects inside of them, are the state. */
  readonly state: ReadonlyArray<object>
  /** Names of what in it makes no difference to what comes after, and so tells no states apart. */
  readonly irrelevant?: ReadonlySet<string>
  /** Shared memory, and which words of it are used. */
  readonly words: Int32Array
  readonly usedWords: ReadonlyArray<number>
  readonly moves: () => ReadonlyArray<Move>
  /** What is wrong with the state, whoever acts next. */
  readonly problem: () => string | undefined
  /** What is wrong with the state if nobody acts who does not have to. */
  readonly problemAtRest: () => string | undefined
  readonly isDone: () => boolean
}

export interface Failure {
  readonly problem: string
  readonly steps: ReadonlyArray<string>
}

export interface Report {
  readonly states: number
  /** Different orders of all moves from the begin to an end; 0 when it failed. */
  readonly orders: bigint
  readonly failure: Failure | undefined
}

const isObject = (value: unknown): value is object =>
  typeof value === "object" && value !== null && !ArrayBuffer.isView(value)

// Small numbers of both signs, as characters.
const ORIGIN = 1000

/** The state of a model as text, and a model's state from such a text. */
class Snapshots {
  private readonly holders: Array<Record<string | number, number | boolean>> = []
  private readonly keys: Array<string | number> = []
  private readonly areBooleans: Array<boolean> = []
  private readonly seen = new Set<object>()
  private readonly irrelevant: ReadonlySet<string>

  constructor({ irrelevant = new Set(), state, usedWords, words }: Model) {
    this.irrelevant = irrelevant
    for (const word of usedWords) this.add(words as unknown as Record<number, number>, word)
    for (const root of state) this.visit(root)
  }

  take(): string {
    let text = ""
    for (let i = 0; i < this.keys.length; i++) {
      text += String.fromCharCode(Number(this.holders[i]![this.keys[i]!]) + ORIGIN)
    }
    return text
  }

  restore(text: string): void {
    for (let i = 0; i < this.keys.length; i++) {
      const value = text.charCodeAt(i) - ORIGIN
      this.holders[i]![this.keys[i]!] = this.areBooleans[i]! ? value !== 0 : value
    }
  }

  private add(holder: Record<string | number, number | boolean>, key: string | number): void {
    this.holders.push(holder)
    this.keys.push(key)
    this.areBooleans.push(typeof holder[key] === "boolean")
  }

  private visit(value: object): void {
    if (this.seen.has(value)) return
    this.seen.add(value)
    for (const [key, each] of Object.entries(value)) {
      if (this.irrelevant.has(key)) continue
      if (typeof each === "number" || typeof each === "boolean") this.add(value as Record<string, number>, key)
      else if (isObject(each)) this.visit(each)
    }
  }
}

interface Node {
  readonly snapshot: string
  readonly from: number
  readonly by: string
  readonly isDone: boolean
  readonly next: Array<number>
}

const MOST_STATES = 2_000_000

export const explore = (model: Model): Report => {
  const snapshots = new Snapshots(model)
  const nodes: Array<Node> = []
  const known = new Map<string, number>()
  const stepsTo = (index: number): ReadonlyArray<string> => {
    const steps: Array<string> = []
    for (let at = nodes[index]!; at.from >= 0; at = nodes[at.from]!) steps.push(at.by)
    return steps.toReversed()
  }
  const report = (problem: string, steps: ReadonlyArray<string>): Report => ({
    states: nodes.length,
    orders: 0n,
    failure: { problem, steps }
  })
  const enter = (from: number, by: string): number => {
    const snapshot = snapshots.take()
    const at = known.get(snapshot) ?? nodes.length
    if (at === nodes.length) {
      known.set(snapshot, at)
      nodes.push({ snapshot, from, by, isDone: model.isDone(), next: [] })
    }
    return at
  }
  enter(-1, "")
  // Nearest states first, so that what fails fails by the shortest way.
  for (let at = 0; at < nodes.length; at++) {
    const node = nodes[at]!
    snapshots.restore(node.snapshot)
    const moves = model.moves()
    const problem = model.problem() ??
      (moves.every(({ isOptional }) => isOptional) ? model.problemAtRest() : undefined) ??
      (moves.length === 0 && !node.isDone ? "nobody can go on" : undefined)
    if (problem !== undefined) return report(problem, stepsTo(at))
    for (const [index, move] of moves.entries()) {
      if (index > 0) snapshots.restore(node.snapshot)
      try {
        move.take()
      } catch (thrown) {
        return report(String(thrown), [...stepsTo(at), move.name])
      }
      node.next.push(enter(at, move.name))
    }
    if (nodes.length > MOST_STATES) return report("there are too many states", [])
  }
  const orders = countOrders(nodes)
  if (orders === undefined) return report("it can go on without an end", [])
  return { states: nodes.length, orders, failure: undefined }
}

/** Undefined where a move leads back to where it was before. */
const countOrders = (nodes: ReadonlyArray<Node>): bigint | undefined => {
  const counts: Array<bigint> = []
  const left = nodes.map(({ next }) => next.length)
  const before = nodes.map((): Array<number> => [])
  for (const [at, { next }] of nodes.entries()) {
    for (const to of next) before[to]!.push(at)
  }
  const ready = [...nodes.keys()].filter((at) => left[at] === 0)
  // It grows while it is gone through.
  for (const at of ready) {
    const { next } = nodes[at]!
    counts[at] = next.length === 0 ? 1n : next.reduce((sum, to) => sum + counts[to]!, 0n)
    for (const from of before[at]!) {
      if (--left[from]! === 0) ready.push(from)
    }
  }
  return ready.length === nodes.length ? counts[0]! : undefined
}
