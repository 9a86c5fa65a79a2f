import { execFileSync } from "node:child_process";
import { defineConfig } from "@playwright/test";

/** The system's Chromium: Playwright's own would be a download. */
function chromium(): string {
  return process.env.CHROMIUM || execFileSync("sh", ["-c", "command -v chromium || command -v google-chrome"]).toString().trim();
}

export default defineConfig({
  testDir: "tests",
  outputDir: "test-results",
  // One server and one engine: tests side by side would only slow each other down.
  workers: 2,
  forbidOnly: true,
  // A browser on a busy machine may be slower than a test expects. What passes only the second time is named as flaky.
  retries: 1,
  timeout: 90_000,
  expect: { timeout: 20_000 },
  reporter: [["list"]],
  use: {
    browserName: "chromium",
    headless: true,
    locale: "zh-CN",
    viewport: { width: 1280, height: 800 },
    trace: "retain-on-failure",
    launchOptions: { executablePath: chromium(), args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] },
  },
});
