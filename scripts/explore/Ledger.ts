/**
 * What a scenario knows about its clients and its vCPUs' requests, and the laws of notes on the protocol that follow from
 * it as plain checks. A law that does not hold ends the run.
 */
import { hex } from "../../src/domain/Address.ts"
import type { DispatchEvent } from "../../src/domain/DispatchEvent.ts"
import type { IoRequest } from "../../src/domain/IoRequest.ts"
import type { Exploration } from "../../src/testing/Explorer.ts"
import type { Access } from "./Vcpus.ts"

/** A client as the checks know it: its range, and where it is in its life. */
export interface Owner {
  readonly name: string
  readonly id: number
  readonly hasDeadline: boolean
  first: number
  last: number
  /** What its handlers work on now, or clean up after. */
  readonly active: Set<Access>
  /** From when its scope begins to close: what it holds may get all-ones. */
  isLeaving: boolean
  isReleased: boolean
}

export const ALL_ONES = 0xffff_ffff
const NOBODY = "(nobody)"
const BY_HAND = "(by hand)"

export const nameOf = ({ port, vcpu }: Access): string => `the read of port ${hex(port)} by vCPU ${vcpu}`

const portOf = (request: IoRequest): number => "port" in request ? request.port : -1

export class Ledger {
  readonly accesses: Array<Access> = []
  readonly owners: Array<Owner> = []
  /** From when PAUSE returned to when the VM may run again. */
  isPaused = false
  /** From when the VM's scope begins to close. */
  isClosing = false
  isClosed = false
  private readonly exploration: Exploration

  constructor(exploration: Exploration) {
    this.exploration = exploration
  }

  violate(problem: string): void {
    this.exploration.violate(problem)
  }

  /** The access that a request stands for; a program reads each of its ports once. */
  accessOf(request: IoRequest): Access | undefined {
    return this.accesses.findLast(({ port, vcpu }) => vcpu === request.vcpu && port === portOf(request))
  }

  /** A request was read from the page and given to a client. */
  dispatched(client: string, request: IoRequest): void {
    const access = this.accessOf(request)
    if (access === undefined || access.end !== undefined) {
      return this.violate(
        `law 2: ${client} gets port ${hex(portOf(request))}, which vCPU ${request.vcpu} does not read`
      )
    }
    if (access.dispatchedTo !== undefined) this.violate(`law 3: ${nameOf(access)} was dispatched twice`)
    access.dispatchedTo = client
    const owners = this.owners.filter(({ first, last }) => first <= access.port && access.port <= last)
    const isRight = client === NOBODY
      ? owners.every(({ isLeaving }) => isLeaving)
      : owners.some(({ name }) => name === client)
    if (!isRight) this.violate(`law 8: ${client} gets ${nameOf(access)}, whose port is not its`)
  }

  /** A request was taken by a program that looks at the page itself, and answers with `value`. */
  takenByHand(request: IoRequest): Access | undefined {
    const access = this.accessOf(request)
    if (access?.dispatchedTo !== undefined) this.violate(`law 3: ${nameOf(access)} was dispatched twice`)
    if (access !== undefined) access.dispatchedTo = BY_HAND
    return access
  }

  /** A request was completed on the page. */
  completed(request: IoRequest): void {
    const access = this.accessOf(request)
    if (access === undefined) return
    if (access.end === "Dropped") this.violate(`law 11: ${nameOf(access)} was dropped by the reset, and completed`)
    access.completions++
    if (access.completions > 1) this.violate(`law 3: ${nameOf(access)} was completed twice`)
  }

  /** What a vCPU was given, when it takes it. */
  answered(access: Access, life: number, value: number): void {
    if (access.life !== life) this.violate(`law 11: ${nameOf(access)} of an old life was answered`)
    if (access.given !== undefined) {
      if (value === access.given) return
      return this.violate(`law 3: ${nameOf(access)} was given ${hex(access.given)} but its vCPU reads ${hex(value)}`)
    }
    if (value !== ALL_ONES) {
      return this.violate(`law 3: nobody answered ${nameOf(access)} but its vCPU reads ${hex(value)}`)
    }
    const owner = this.owners.find(({ name }) => name === access.dispatchedTo)
    const mayBeAllOnes = access.dispatchedTo === NOBODY || this.isClosing ||
      (owner !== undefined && (owner.isLeaving || owner.hasDeadline))
    if (!mayBeAllOnes) this.violate(`law 3: ${nameOf(access)} got all-ones, though ${access.dispatchedTo} was there`)
  }

  /** A handler is about to run, or to go on. */
  mayRun(owner: Owner): void {
    if (this.isClosed) this.violate(`law 9: ${owner.name} runs after the VM's scope was closed`)
    if (owner.isReleased) this.violate(`law 9: ${owner.name} runs after it was released`)
    if (this.isPaused) this.violate(`law 10: ${owner.name} runs while the VM is paused`)
  }

  /** Nothing is held: whoever runs still had its request taken away, and only cleans up. */
  nothingHeld(when: string): void {
    for (const { active, name } of this.owners) {
      for (const access of active) {
        if (access.completions === 0) this.violate(`${when}, and ${name} holds ${nameOf(access)}`)
      }
    }
  }

  /** No handler of these runs, not even to clean up. */
  nothingRuns(owners: ReadonlyArray<Owner>, when: string): void {
    for (const { active, name } of owners) {
      if (active.size > 0) this.violate(`${when}, and a handler of ${name} runs`)
    }
  }

  /** At the end of a run: each request ended, and the dispatcher saw nothing that may not be. */
  settled(events: ReadonlyArray<DispatchEvent>): void {
    for (const access of this.accesses) {
      if (access.end === undefined) this.violate(`law 4: ${nameOf(access)} was not answered`)
    }
    for (const event of events) {
      if (event._tag === "ForeignStep" || event._tag === "NotifyRefused" || event._tag === "Malformed") {
        this.violate(`law 1: the dispatcher reports ${JSON.stringify(event)}`)
      }
    }
  }
}
