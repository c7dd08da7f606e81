/**
 * What a VM's vCPUs have in common wherever they run.
 */
import type { ServicePage } from "../../services/ServiceMemory.ts"
import type { Activity } from "./activity.ts"
import type { VcpuRunner } from "./VcpuRunner.ts"

export interface PlacedVcpu {
  readonly runner: VcpuRunner
  activity: Activity
}

export abstract class PlacedVcpus<Core extends PlacedVcpu> {
  protected abstract readonly cores: ReadonlyArray<Core>

  setRequestPage(page: ServicePage | undefined): void {
    for (const { runner } of this.cores) runner.requests.setPage(page)
  }

  start(vcpus: ReadonlyArray<number>): void {
    for (const vcpu of vcpus) this.cores[vcpu]!.activity = "Running"
  }

  isInside(vcpu: number): boolean {
    return this.cores[vcpu]!.runner.isInside
  }

  discard(vcpu: number): void {
    const core = this.cores[vcpu]!
    core.runner.discard()
    if (core.activity !== "Absent") core.activity = "Running"
  }

  abandon(): void {
    for (const core of this.cores) {
      core.runner.abandon()
      core.activity = "Absent"
    }
  }
}
