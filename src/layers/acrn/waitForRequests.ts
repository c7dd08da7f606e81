/**
 * What the thread of a VM does: waits inside the driver while nothing is outstanding, and looks at the page while
 * something is, for then the driver does not wait (drivers/virt/acrn/ioreq.c, `acrn_ioreq_client_wait`).
 */
import { Errno } from "../../domain/Errno.ts"
import type { Lookout } from "./Lookout.ts"
import { BELL, STATE, STOP, THREAD_ID, ThreadState } from "./waiterWords.ts"

const MIN_PAUSE_MS = 0.05
const MAX_PAUSE_MS = 2

export interface Waiting {
  readonly words: Int32Array
  readonly lookout: Lookout
  readonly vcpus: number
  /** ATTACH_IOREQ_CLIENT: returns when there may be a request, when a signal came, or with a negative errno. */
  readonly attach: () => number
  readonly tell: (vcpu: number) => void
  readonly threadId: () => number
}

/** Runs until it is told to stop, which gives 0, or the driver refuses to go on, which gives its negative errno. */
export const waitForRequests = ({ attach, lookout, tell, threadId, vcpus, words }: Waiting): number => {
  Atomics.store(words, THREAD_ID, threadId())
  if (Atomics.compareExchange(words, STATE, ThreadState.Starting, ThreadState.Running) !== ThreadState.Starting) {
    return 0
  }
  let pause = MIN_PAUSE_MS
  let pauseInVain = MIN_PAUSE_MS
  let isInVain = false
  let result = 0
  while (Atomics.load(words, STOP) === 0) {
    const bell = Atomics.load(words, BELL)
    if (lookout.look(tell)) {
      isInVain = false
      pause = MIN_PAUSE_MS
      pauseInVain = MIN_PAUSE_MS
    } else if (lookout.isOutstanding) {
      // What the only vCPU waits for is outstanding: nothing new can come before the bell.
      Atomics.wait(words, BELL, bell, vcpus === 1 ? Infinity : pause)
      pause = Math.min(pause * 2, MAX_PAUSE_MS)
    } else if (isInVain) {
      // A driver that says there is a request, when the page shows none, must not be asked in a busy loop.
      Atomics.wait(words, BELL, bell, pauseInVain)
      pauseInVain = Math.min(pauseInVain * 2, MAX_PAUSE_MS)
      isInVain = false
    } else {
      result = attach()
      if (result < 0 && result !== -Errno.EINTR) break
      result = 0
      isInVain = true
    }
  }
  Atomics.store(words, STATE, ThreadState.Ended)
  Atomics.notify(words, STATE)
  return result
}
