import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/{hsm,layers/acrn}/**/*.hsm.ts"],
    // Each test boots machines; an end that does not come is found by the bench's own deadline, which tells more.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    pool: "forks",
    maxWorkers: 1
  }
})
