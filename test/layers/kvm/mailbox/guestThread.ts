/**
 * The thread of a vCPU whose guest is made up: each request is the next number, each answer its double, and once it has
 * no more requests it stays inside until it is called back.
 */
import { workerData } from "node:worker_threads"
import { runVcpu } from "../../../../src/layers/kvm/mailbox/runVcpu.ts"

interface GuestJob {
  readonly words: Int32Array<SharedArrayBuffer>
  readonly vcpu: number
  readonly spins: number
  readonly requests: number
  /** The answer to the last request, and whether the guest is called back: two words a vCPU. */
  readonly guest: Int32Array<SharedArrayBuffer>
}

const INTERRUPTED = -4
const WRONG_ANSWER = -1

const { guest, requests, spins, vcpu, words } = workerData as GuestJob
const ANSWER = vcpu * 2
const RECALLED = ANSWER + 1

let made = 0
runVcpu({
  words,
  vcpu,
  spins,
  enter: () => {
    if (guest[ANSWER] !== made * 2) return WRONG_ANSWER
    if (made < requests && Atomics.load(guest, RECALLED) === 0) return ++made
    Atomics.wait(guest, RECALLED, 0)
    return INTERRUPTED
  }
})
