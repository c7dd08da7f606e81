/**
 * Threads that wait inside the driver, and the layer's end of each VM's.
 *
 * A thread starts slowly, so those whose VM is over are kept for the next one.
 *
 * The driver frees a client under whoever waits for it, so a thread must be out of the driver, for good, before the
 * client is destroyed: `leave` says so to the thread, ends the system call that it may be in, and returns when it is out.
 */
import { Worker } from "node:worker_threads"
import { HsmIoctl } from "../../domain/abi/HsmIoctl.ts"
import { SLOT_KERNEL_HANDLED_OFFSET, SLOT_STATE_OFFSET, SlotStateCode } from "../../domain/abi/IoRequestSlot.ts"
import { MAX_VCPUS } from "../../domain/Limits.ts"
import type { Libc } from "../native/Libc.ts"
import {
  BELL,
  FINISHED,
  type SlotPlaces,
  STATE,
  STOP,
  THREAD_ID,
  ThreadState,
  type WaiterJob,
  type WaiterMessage,
  WORDS
} from "./waiterWords.ts"

export interface WaiterOptions {
  readonly fd: number
  readonly vcpus: number
  readonly page: Uint8Array<SharedArrayBuffer>
  /** A vCPU may have a new request. */
  readonly onRequest: (vcpu: number) => void
  /** The wait ended, but not because of `leave`. */
  readonly onFailure: (problem: string) => void
}

export interface Waiter {
  /** The driver was told that a vCPU's request is finished. */
  readonly finished: (vcpu: number) => void
  /** The driver finished all requests by itself. */
  readonly allFinished: () => void
  /** Returns when the thread will not be inside the driver any more. */
  readonly leave: () => void
  /** The thread has nothing of this VM any more. */
  readonly gone: Promise<void>
}

/** A thread that is ready to wait. */
export interface ReadyThread {
  readonly wait: (options: WaiterOptions) => Waiter
  /** It is not needed after all. */
  readonly release: () => void
}

export interface Waiters {
  /** A thread that is ready; fails when it cannot start. */
  readonly take: () => Promise<ReadyThread>
  /** Ends the threads, none of which may be waiting. */
  readonly close: () => Promise<void>
}

export const slotPlaces: SlotPlaces = {
  state: SLOT_STATE_OFFSET / 4,
  kernelHandled: SLOT_KERNEL_HANDLED_OFFSET / 4,
  processing: SlotStateCode.Processing
}

// A signal may come between the thread's look at STOP and its system call, so it is sent until the thread is out.
const SIGNAL_INTERVAL_MS = 1

// Beside this file, and translated as this file is.
const script = new URL(`./waiterThread${import.meta.url.slice(-".ts".length)}`, import.meta.url)

const { Ended, Running, Starting } = ThreadState

/** What a busy thread's messages and its end are told to. */
interface Listener {
  readonly onMessage: (message: WaiterMessage) => void
  readonly onEnd: (problem: string) => void
}

class Thread implements ReadyThread {
  readonly ready: Promise<this>
  private readonly worker: Worker
  private readonly exited: Promise<void>
  private readonly libc: Libc
  private readonly onIdle: (thread: Thread) => void
  private listener: Listener | undefined

  constructor(libc: Libc, onIdle: (thread: Thread) => void) {
    this.libc = libc
    this.onIdle = onIdle
    const worker = new Worker(script, { name: "acrn-requests" })
    this.worker = worker
    let problem = "it ended"
    worker.on("message", (message: WaiterMessage) => this.listener?.onMessage(message))
    worker.on("error", (error: unknown) => {
      problem = String(error)
    })
    this.ready = new Promise((resolve, reject) => {
      this.listener = { onMessage: () => resolve(this), onEnd: (why) => reject(new Error(why)) }
    })
    this.exited = new Promise((resolve) =>
      worker.once("exit", () => {
        this.listener?.onEnd(problem)
        resolve()
      })
    )
  }

  release(): void {
    this.onIdle(this)
  }

  /** Whether the process has to stay for it. */
  hold(isHeld: boolean): void {
    if (isHeld) this.worker.ref()
    else this.worker.unref()
  }

  async end(): Promise<void> {
    await this.worker.terminate()
    await this.exited
  }

  wait({ fd, onFailure, onRequest, page, vcpus }: WaiterOptions): Waiter {
    const shared = new SharedArrayBuffer(WORDS * 4)
    const words = new Int32Array(shared)
    let isLeaving = false
    const gone = new Promise<void>((resolve) => {
      const over = (problem: string) => {
        // For a thread that died: whoever leaves does not wait for it.
        Atomics.store(words, STATE, Ended)
        this.listener = undefined
        if (!isLeaving) onFailure(problem)
        resolve()
      }
      this.listener = {
        onMessage: (message) => {
          if (message === "Ready") return
          if ("vcpu" in message) {
            if (!isLeaving) onRequest(message.vcpu)
            return
          }
          over(`the driver answered ${message.result}`)
          this.release()
        },
        onEnd: over
      }
    })
    const job: WaiterJob = {
      fd,
      attachRequest: HsmIoctl.AttachIoreqClient,
      places: slotPlaces,
      vcpus,
      words: shared,
      page: page.buffer,
      pageOffset: page.byteOffset
    }
    this.worker.postMessage(job)
    const ring = () => {
      Atomics.add(words, BELL, 1)
      Atomics.notify(words, BELL)
    }
    const finish = (vcpu: number) => Atomics.add(words, FINISHED + vcpu, 1)
    return {
      gone,
      finished: (vcpu) => {
        finish(vcpu)
        ring()
      },
      allFinished: () => {
        for (let vcpu = 0; vcpu < MAX_VCPUS; vcpu++) finish(vcpu)
        ring()
      },
      leave: () => {
        isLeaving = true
        Atomics.store(words, STOP, 1)
        ring()
        if (Atomics.compareExchange(words, STATE, Starting, Ended) === Starting) return
        while (Atomics.load(words, STATE) !== Ended) {
          this.libc.interruptThread(Atomics.load(words, THREAD_ID))
          Atomics.wait(words, STATE, Running, SIGNAL_INTERVAL_MS)
        }
      }
    }
  }
}

/** Threads of one layer; the first starts at once. */
export const makeWaiters = (libc: Libc): Waiters => {
  const release = libc.makeInterruptible()
  const all = new Set<Thread>()
  const idle: Array<Thread> = []
  const start = async (): Promise<Thread> => {
    const thread = new Thread(libc, (each) => {
      each.hold(false)
      idle.push(each)
    })
    all.add(thread)
    try {
      return await thread.ready
    } catch (cause) {
      all.delete(thread)
      throw cause
    }
  }
  let first: Promise<Thread> | undefined = start()
  // Whoever takes it hears of its failure; nobody may.
  first.catch(() => undefined)
  return {
    take: async () => {
      const begun = first
      first = undefined
      const thread = idle.pop() ?? await (begun ?? start())
      thread.hold(true)
      return thread
    },
    close: async () => {
      await Promise.all([...all].map((thread) => thread.end()))
      release()
    }
  }
}
