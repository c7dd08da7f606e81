import { defineConfig } from "vitest/config"

/** The tests that have to catch a guard that is taken out, and no others. */
export default defineConfig({
  test: {
    include: ["test/regressions/*.test.ts"],
    // These two read the source as it is, not as it is mutated.
    exclude: ["test/regressions/classes.test.ts"],
    // Taking a guard out may make a vCPU wait for ever.
    testTimeout: 5_000
  }
})
