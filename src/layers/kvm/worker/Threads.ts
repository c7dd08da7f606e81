/**
 * Threads that run vCPUs. One takes tens of milliseconds to start, so those whose VM is over are kept for the next.
 */
import { Worker } from "node:worker_threads"
import type { VcpuJob, VcpuThreadMessage } from "./messages.ts"

/** A thread that is ready to run a vCPU. */
export interface VcpuThread {
  /** What the kernel calls it. */
  readonly id: number
  /** Begins to run a vCPU. `onEnd` is called once the thread left it, with a problem if the thread is no more. */
  readonly run: (job: VcpuJob, onEnd: (problem: string | undefined) => void) => void
  /** It is not needed after all. */
  readonly release: () => void
}

export interface Threads {
  /** A thread that is ready; fails when it cannot start. */
  readonly take: () => Promise<VcpuThread>
  /** Ends the threads, none of which may run a vCPU. */
  readonly close: () => Promise<void>
}

// Beside this file, and translated as this file is.
const script = new URL(`./vcpuThread${import.meta.url.slice(-".ts".length)}`, import.meta.url)

class Thread implements VcpuThread {
  id = 0
  readonly ready: Promise<this>
  readonly exited: Promise<void>
  private readonly worker = new Worker(script, { name: "kvm-vcpu" })
  private readonly onIdle: (thread: Thread) => void
  private onEnd: (problem: string | undefined) => void = () => undefined

  constructor(onIdle: (thread: Thread) => void) {
    this.onIdle = onIdle
    const { worker } = this
    let problem = "it ended"
    worker.on("error", (error: unknown) => {
      problem = String(error)
    })
    this.ready = new Promise((resolve, reject) => {
      this.onEnd = (why) => reject(new Error(why))
      worker.on("message", (message: VcpuThreadMessage) => {
        if (message === "Left") {
          this.release()
          return
        }
        this.id = message.threadId
        resolve(this)
      })
    })
    this.exited = new Promise((resolve) =>
      worker.once("exit", () => {
        this.onEnd(problem)
        resolve()
      })
    )
  }

  /** Whether the process has to stay for it. */
  hold(isHeld: boolean): void {
    if (isHeld) this.worker.ref()
    else this.worker.unref()
  }

  run(job: VcpuJob, onEnd: (problem: string | undefined) => void): void {
    this.onEnd = onEnd
    this.worker.postMessage(job)
  }

  release(): void {
    const { onEnd } = this
    this.onEnd = () => undefined
    this.onIdle(this)
    onEnd(undefined)
  }

  async end(): Promise<void> {
    await this.worker.terminate()
    await this.exited
  }
}

export const makeThreads = (): Threads => {
  const all = new Set<Thread>()
  const idle = new Set<Thread>()
  const start = (): Promise<Thread> => {
    const thread = new Thread((each) => {
      each.hold(false)
      idle.add(each)
    })
    all.add(thread)
    void thread.exited.then(() => {
      all.delete(thread)
      idle.delete(thread)
    })
    return thread.ready
  }
  return {
    take: async () => {
      const [first] = idle
      if (first !== undefined) idle.delete(first)
      const thread = first ?? await start()
      thread.hold(true)
      return thread
    },
    close: async () => {
      await Promise.all([...all].map((thread) => thread.end()))
    }
  }
}
