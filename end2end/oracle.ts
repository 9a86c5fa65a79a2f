/** What must never happen while hostile texts are on a page, and what a page may be made of; all of it counted. */

import type { BrowserContext, Page } from "@playwright/test";

export type Kind = "canary" | "console" | "dialog" | "element" | "policy" | "popup" | "request";

export interface Incident {
  kind: Kind;
  what: string;
  /** What was being done on that page. */
  during: string;
}

/** A part of the page, and all that may be inside it. */
interface Zone {
  within: string;
  tags: string;
  /** Any but dangerous ones, where it is left out. */
  attributes?: string;
}

/** The first that fits counts. */
const ZONES: Zone[] = [
  { within: ".bubble, .chat-title, .undo-title, h1, title, textarea", tags: "", attributes: "" },
  { within: ".chat-found", tags: "mark", attributes: "" },
  {
    within: "[data-testid=message-body]",
    tags:
      "a blockquote br button code del div em figcaption figure hr input li ol p path pre span strong svg table tbody td " +
      "th thead tr ul",
    attributes:
      "aria-label aria-level aria-hidden checked class d data-align data-level data-outcome data-testid dir disabled fill " +
      "focusable height href rel role scope start stroke stroke-linecap stroke-linejoin stroke-width tabindex target " +
      "title type viewBox width",
  },
  { within: "head", tags: "link meta script style title" },
  {
    within: "html",
    tags:
      "a article aside body br button datalist dd details dialog div dl dt fieldset form h1 h2 head header input label legend li " +
      "main nav ol option output p path script section select small span strong summary svg textarea ul",
  },
];

export class Oracle {
  readonly incidents: Incident[] = [];
  private readonly doing = new WeakMap<Page, string>();

  private constructor() {}

  /** Watches all pages that this context will have. Nothing gets out of it to another server. */
  static async watch(context: BrowserContext, origin: string): Promise<Oracle> {
    const oracle = new Oracle();
    const add = (kind: Kind, what: string, page: Page | null) =>
      void oracle.incidents.push({ kind, what: what.slice(0, 300), during: (page && oracle.doing.get(page)) ?? "" });
    context.on("dialog", async (dialog) => {
      add("dialog", `${dialog.type()}: ${dialog.message()}`, dialog.page());
      // Where the page has gone on meanwhile there is none any more.
      await dialog.dismiss().catch(() => {});
    });
    const isForeign = (url: string) => new URL(url).origin !== origin;
    context.on("request", (request) => {
      if (isForeign(request.url())) add("request", request.url(), pageOf(request));
    });
    await context.route((url) => isForeign(url.href), (route) => route.abort());
    context.on("page", async (page) => {
      page.on("websocket", (socket) => add("request", socket.url(), page));
      const opener = await page.opener();
      if (opener) add("popup", page.url(), opener);
    });
    context.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) {
        add("console", `${message.text()} ${message.location().url}`, message.page());
      }
    });
    context.on("weberror", (error) => add("console", String(error.error()), error.page()));
    await context.exposeBinding("reportIncident", ({ page }, kind: Kind, what: string) => add(kind, what, page));
    await context.addInitScript(guard, ZONES);
    return oracle;
  }

  /** Notes what is being done on a page from now on. */
  during(page: Page, what: string): void {
    this.doing.set(page, what);
  }

  /** All incidents so far, those included that these pages have not reported yet. */
  async all(...pages: Page[]): Promise<Incident[]> {
    for (const page of pages) await page.evaluate(() => new Promise((done) => setTimeout(done)));
    return this.incidents;
  }

  count(kind: Kind): number {
    return this.incidents.filter((incident) => incident.kind === kind).length;
  }
}

function pageOf(request: { frame(): { page(): Page } }): Page | null {
  try {
    return request.frame().page();
  } catch {
    // Of a page that is not there yet.
    return null;
  }
}

/** Runs in the page, before anything else does. Looks at each element there ever is, however briefly. */
function guard(zones: Zone[]): void {
  const bridge = window as unknown as { reportIncident(kind: Kind, what: string): void };
  const report = bridge.reportIncident.bind(window);
  const allowed = zones.map(({ within, tags, attributes }) => ({
    within,
    tags: new Set(tags.split(" ")),
    attributes: attributes === undefined ? undefined : new Set(attributes.split(" ")),
  }));
  const dangerous = /^(on.*|src.*|action|formaction|background|poster|ping|data|http-equiv|xlink:.*|is|style)$/i;

  Object.defineProperty(window, "__pwned", { set: (value) => report("canary", String(value)) });
  addEventListener("securitypolicyviolation", (event) =>
    report("policy", `${event.violatedDirective} ${event.blockedURI}`),
  );

  const isLink = (element: Element): element is HTMLAnchorElement => element.localName === "a";
  /** What the page itself does with attributes that nobody else may have. */
  const isOwn = (element: Element, attribute: string) =>
    (element.localName === "textarea" && attribute === "style") ||
    (element instanceof HTMLScriptElement && element.nonce !== "" && attribute === "src");

  const flaws = (element: Element, parent: Element | null): string[] => {
    const holder = element.parentElement ?? parent;
    // What is not in the document any more is looked at as though it stood on the bare page.
    const zone = allowed.find(({ within }) => holder?.closest(within) ?? parent?.closest(within)) ?? allowed.at(-1);
    const found: string[] = [];
    if (holder !== null && !zone?.tags.has(element.localName)) found.push(`in ${zone?.within}`);
    if (element instanceof HTMLScriptElement && !element.nonce) found.push("without a nonce");
    for (const { name } of element.attributes) {
      const isAllowed = zone?.attributes?.has(name) ?? !dangerous.test(name);
      if (!isAllowed && !isOwn(element, name)) found.push(`has ${name}`);
    }
    if (isLink(element) && element.hasAttribute("href")) {
      // What the browser cannot read leads nowhere.
      const isSafe = ["http:", "https:", "mailto:"].includes(element.protocol) || !URL.canParse(element.href);
      if (!isSafe) found.push(`leads to ${element.href}`);
      const isSaid = holder?.closest("[data-testid=message-body]");
      if (isSaid && (element.rel !== "noopener noreferrer nofollow" || element.target !== "_blank")) {
        found.push("is tied to what it opens");
      }
    }
    return found;
  };
  const inspect = (element: Element, parent: Element | null) => {
    const found = flaws(element, parent);
    if (found.length > 0) report("element", `${element.outerHTML.slice(0, 120)} ${found.join(", ")}`);
  };
  const look = (changes: MutationRecord[]) => {
    for (const { type, target, addedNodes } of changes) {
      if (type === "attributes") inspect(target as Element, null);
      for (const node of addedNodes) {
        if (!(node instanceof Element)) continue;
        inspect(node, target instanceof Element ? target : null);
        for (const inner of node.querySelectorAll("*")) inspect(inner, inner.parentElement);
      }
    }
  };
  new MutationObserver(look).observe(document, { attributes: true, childList: true, subtree: true });
}
