import { defineConfig } from "vitest/config"

export default defineConfig({
  test: { include: ["test/testing/laws/suite/suite.ts"], pool: "forks", maxWorkers: 1 }
})
