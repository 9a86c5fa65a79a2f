//! Shows blocks in a short notation, and holds growing text to the parse of the whole.

use std::{fmt::Write, time::Instant};

use proptest::prelude::*;

use super::{Growing, markdown};
use crate::chat::markup::{Block, Inline};

/// Blocks in a short notation: `p(…)`, `h1(…)`, `code:rs(…)`, `ul(li(…))`, and inside `**…**`, `_…_`, `<url …>`.
fn show(blocks: &[Block]) -> String {
    let mut out = String::new();
    for block in blocks {
        if !out.is_empty() {
            out.push(' ');
        }
        match block {
            Block::Paragraph { inlines } => write!(out, "p({})", line(inlines)),
            Block::Heading { level, inlines } => write!(out, "h{level}({})", line(inlines)),
            Block::Code { language, code } => write!(out, "code:{language}({})", code.replace('\n', "⏎")),
            Block::Quote { blocks } => write!(out, "quote({})", show(blocks)),
            Block::Math { source } => write!(out, "math({})", source.replace('\n', "⏎")),
            Block::Rule => write!(out, "rule"),
            Block::List { start, items } => {
                let items: Vec<_> = items
                    .iter()
                    .map(|item| {
                        let tick = item.checked.map_or("", |checked| if checked { "☑" } else { "☐" });
                        format!("li{tick}({})", show(&item.blocks))
                    })
                    .collect();
                let name = start.map_or("ul".to_owned(), |start| format!("ol{start}"));
                write!(out, "{name}({})", items.join(" "))
            }
            Block::Table { alignments, header, rows } => {
                let row = |cells: &[Vec<Inline>]| cells.iter().map(|cell| line(cell)).collect::<Vec<_>>().join("|");
                let rows: Vec<_> = std::iter::once(header).chain(rows).map(|cells| row(cells)).collect();
                write!(out, "table{}({})", alignments.len(), rows.join("⏎"))
            }
        }
        .expect("a string takes everything");
    }
    out
}

fn line(inlines: &[Inline]) -> String {
    inlines
        .iter()
        .map(|inline| match inline {
            Inline::Text { text } => text.clone(),
            Inline::Code { code } => format!("`{code}`"),
            Inline::Strong { inlines } => format!("**{}**", line(inlines)),
            Inline::Emphasis { inlines } => format!("_{}_", line(inlines)),
            Inline::Strikethrough { inlines } => format!("~{}~", line(inlines)),
            Inline::Link { target, inlines } => format!("<{} {}>", target.as_str(), line(inlines)),
            Inline::Math { source } => format!("${source}$"),
            Inline::SoftBreak => "⏎".to_owned(),
            Inline::LineBreak => "↵".to_owned(),
        })
        .collect()
}

/// Parses whole and in pieces of several lengths, and compares with what is expected.
fn check(text: &str, expected: &str) {
    assert_eq!(show(&markdown(text)), expected, "of {text:?}");
    assert_same_in_pieces(text);
}

fn grow<'text>(pieces: impl IntoIterator<Item = &'text str>) -> Vec<Block> {
    let mut growing = Growing::default();
    let mut blocks = Vec::new();
    for piece in pieces {
        blocks.extend(growing.push(piece).finished);
    }
    let last = growing.finish();
    assert_eq!(last.tail, Vec::new());
    blocks.extend(last.finished);
    blocks
}

fn assert_same_in_pieces(text: &str) {
    let whole = markdown(text);
    let bounds: Vec<_> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    for step in [1, 2, 3, 7, 50] {
        let pieces = bounds.chunks(step).scan(0, |from, chunk| {
            let to = *chunk.last().expect("chunks are not empty");
            let piece = &text[*from..to];
            *from = to;
            Some(piece)
        });
        assert_eq!(grow(pieces), whole, "of {text:?} by {step}");
    }
}

/// What is seen after everything has come but the end.
fn tail_of(text: &str) -> String {
    show(&Growing::default().push(text).tail)
}

#[test]
fn chinese_emphasis_needs_no_spaces() {
    check("**重点：**后文", "p(**重点：**后文)");
    check("这是**“引用”**的*例子*。", "p(这是**“引用”**的_例子_。)");
    check("~~旧~~新", "p(~旧~新)");
}

#[test]
fn headings_stand_alone_without_blank_lines() {
    check("### 1. 标题\n内容\n## 二\n- 一\n# 三", "h3(1. 标题) p(内容) h2(二) ul(li(p(一))) h1(三)");
    check("Title\n===\n\nSub\n---\n\n#hashtag", "h1(Title) h2(Sub) p(#hashtag)");
}

#[test]
fn fences_keep_their_language_and_blank_lines() {
    check(
        "看：\n```rust\nfn main() {\n\n# no heading\n}\n```\n完",
        "p(看：) code:rust(fn main() {⏎⏎# no heading⏎}) p(完)",
    );
    check("~~~\n```\n~~~\n\n````md\n```\na\n```\n````", "code:(```) code:md(```⏎a⏎```)");
    check("```python title=x\nprint(1)", "code:python(print(1))");
    check("``` a ``` b", "p(`a` b)");
    check("    four\n\n    more\n\ntext", "code:(four⏎⏎more) p(text)");
}

#[test]
fn lists_nest_continue_and_end() {
    check("- a\n  - b\n    1. c\n- d", "ul(li(p(a) ul(li(p(b) ol1(li(p(c)))))) li(p(d)))");
    check("1. a\n\n2. b\n\n   more\n\nend", "ol1(li(p(a)) li(p(b) p(more))) p(end)");
    check("3) x\n4) y", "ol3(li(p(x)) li(p(y)))");
    check("- a\nlazy\n\n\n- b\n\n12 apples\n\n2. no", "ul(li(p(a⏎lazy)) li(p(b))) p(12 apples) ol2(li(p(no)))");
    check("1. 代码：\n\n   ```sh\n   ls\n\n   cd\n   ```\n\n2. 完", "ol1(li(p(代码：) code:sh(ls⏎⏎cd)) li(p(完)))");
    check("- a\n```\nx\n\n- no item\n```\nb", "ul(li(p(a))) code:(x⏎⏎- no item) p(b)");
    check("- [ ] 做\n- [x] 好", "ul(li☐(p(做)) li☑(p(好)))");
}

#[test]
fn quotes_tables_and_rules() {
    check("> a\nb\n>\n> - c\n\n> d\n\n---\n***", "quote(p(a⏎b) ul(li(p(c)))) quote(p(d)) rule rule");
    check("| 名 | 值 |\n|:-|-:|\n| a | **1** |\n| b |\n\nx", "table2(名|值⏎a|**1**⏎b|) p(x)");
    check("|a|b|\n|-|-|\n|x<br>y|`p\\|q`|z|", "table2(a|b⏎x↵y|`p|q`)");
}

#[test]
fn mathematics_in_lines_and_displayed() {
    check(r"设 $x^2$ 与 \(a_1*b*c\)。", "p(设 $x^2$ 与 $a_1*b*c$。)");
    check("公式：\n\\[\nE\n=\n- mc^2\n\\]\n其中", "p(公式：) math(E⏎=⏎- mc^2) p(其中)");
    check("$$a+b$$\n\n$$\nx\n$$", "math(a+b) math(x)");
    check("前 $$a$$ 后", "p(前 ) math(a) p( 后)");
    check("- 式 \\[ x \\]", "ul(li(p(式 ) math(x)))");
    check("$$ open\n\n# next", "p($$ open) h1(next)");
    check("it costs $5 and $6", "p(it costs $5 and $6)");
}

#[test]
fn html_is_text() {
    check("a <b onclick=x>c</b><br/>d", "p(a <b onclick=x>c</b>↵d)");
    check("<script>alert(1)</script>", "p(<script>alert(1)</script>)");
    check("<div>\n  <p>\n</div>", "p(<div>↵  <p>↵</div>)");
}

#[test]
fn links_lead_to_safe_places_or_are_text() {
    check("[站](https://e.org/a?b=1)", "p(<https://e.org/a?b=1 站>)");
    check("[x](javascript:alert(1)) [**y**](/rel) [z](data:text/html,a)", "p(x **y** z)");
    check(
        "![图](https://e.org/i.png) ![](http://e.org/j.png)",
        "p(<https://e.org/i.png 图> <http://e.org/j.png http://e.org/j.png>)",
    );
    check("[![a](https://e.org/i)](https://e.org)", "p(<https://e.org a>)");
    check("见https://e.org/a，谢谢 a@b.org", "p(见<https://e.org/a https://e.org/a>，谢谢 <mailto:a@b.org a@b.org>)");
    check("<https://e.org>", "p(<https://e.org https://e.org>)");
    check(r"[x](http:/a) [y](https:\\e.org) [z](HTTPS:///e.org) [v](https://) [w](mailto:)", "p(x y z v w)");
}

#[test]
fn link_definitions_and_footnotes_are_text_wherever_they_stand() {
    check("[a] [b][a]\n\n[a]: /u", "p([a] [b][a]) p([a]: /u)");
    check("见[^1]\n\n[^1]: 注\n- [x]: y", "p(见[^1]) p([^1]: 注) ul(li(p([x]: y)))");
    check("```py\n[x for x in a[1]]:\n[y]:\n```", "code:py([x for x in a[1]]:⏎[y]:)");
    check("- [ ] a\n- [x] b[1]: c", "ul(li☐(p(a)) li☑(p(b[1]: c)))");
}

#[test]
fn nothing_gives_nothing() {
    check("", "");
    check(" \n\t\n\r\n\n", "");
    check("\r\na\r\n\r\nb\rc", "p(a) p(b⏎c)");
    check("a\0b", "p(a\u{FFFD}b)");
}

#[test]
fn a_block_is_final_once_the_next_has_begun() {
    let mut growing = Growing::default();
    assert_eq!(show(&growing.push("一\n\n").finished), "");
    let update = growing.push("二");
    assert_eq!((show(&update.finished), show(&update.tail)), ("p(一)".to_owned(), "p(二)".to_owned()));
    assert_eq!(show(&growing.push("\n\n```\na\n```\n\n").finished), "p(二)");
    assert_eq!(show(&growing.push("1").finished), "code:(a)");
    assert_eq!(show(&growing.push(". x\n\n2").finished), "");
    assert_eq!(show(&growing.push("0 years").finished), "ol1(li(p(x)))");
    assert_eq!(show(&growing.finish().finished), "p(20 years)");
    assert_eq!(growing.finish(), super::Update::default());
}

#[test]
fn a_growing_tail_shows_no_bare_syntax() {
    for (text, expected) in [
        ("**重", "p(**重**)"),
        ("**重点*", "p(**重点**)"),
        ("说 **", "p(说)"),
        ("a **b `c", "p(a **b `c`**)"),
        ("a `", "p(a)"),
        ("x ``a`b", "p(x ``a`b``)".replace("``a`b``", "`a`b`").as_str()),
        ("2*3 = 6 and snake_ca", "p(2*3 = 6 and snake_ca)"),
        ("*轻", "p(_轻_)"),
        ("~~旧", "p(~旧~)"),
        ("see [text](ht", "p(see text)"),
        ("see **![图](ht", "p(see **图**)"),
        ("设 \\(x^2", "p(设 $x^2$)"),
        ("设\n\\[ x^2 \\", "p(设) math(x^2)"),
        ("$$\nx", "math(x)"),
        ("$$\nx\n$", "math(x)"),
        ("$$\n$", ""),
        ("```py\na\n``", "code:py(a)"),
        ("点：\n-", "p(点：)"),
        ("点：\n- **", "p(点：)"),
        ("- a\n- *b", "ul(li(p(a)) li(p(_b_)))"),
        ("1. a\n   ```\n   **k", "ol1(li(p(a) code:(**k)))"),
        ("| a | **b", "table2(a|**b**)"),
        ("| a | b |\n|--", "table2(a|b)"),
        ("| a | b |\n|--|--|\n| `c", "table2(a|b⏎`c`|)"),
        ("##", ""),
        ("a\\", "p(a)"),
    ] {
        assert_eq!(tail_of(text), expected, "of {text:?}");
    }
}

#[test]
fn what_is_nested_deeper_than_readers_can_take_is_shown_flat() {
    for text in ["- ".repeat(60) + "x", "> ".repeat(500) + "x", "*a **b ".repeat(100) + "x" + &"c** d*".repeat(100)] {
        let json = serde_json::to_string(&markdown(&text)).expect("blocks become JSON");
        let event = format!(r#"{{"seq":1,"kind":{{"tail":{{"blocks":{json}}}}}}}"#);
        let event: crate::chat::event::Event = serde_json::from_str(&event).expect("and come back");
        assert!(format!("{event:?}").contains('x'), "{event:?}");
    }
}

/// Repeated, each of these has made some Markdown reader slow; `·` stands between them.
const HOSTILE: [&str; 4] = [
    "[·]·*·_·**·`·``` ·>·> ·![·[^·[](·[a](·](·<·<!--·<a ·</·$·$$·\\(·\\[·~·~~·-·- ·1. ·* ·+\n·#·# ·|·|-·&",
    "&#·http://a·www.·a@·\\·\n· ·\t·\r·*a ·**a ·a** ·_a *b·*a **a ·`a``b·- a\n\n·- a\n·> a\n·>- ",
    "1) a\n\n  ·  - a\n·| a ·|a|\n·[a]: b\n·[a]:·```\n·~~~\n\n·\n\na·a\n\n·$$\n·\\[\n·中·\u{FDD0}·\0·<?",
    "<![CDATA[·[[a]·x\n===\n·(·!·https://e.org/(·[ ] ·- [ ] ·\u{3000}·a*b_",
];

#[test]
fn hostile_texts_take_no_longer_than_their_length_deserves() {
    const BYTES: usize = 128 * 1024;
    let mut slow = Vec::new();
    for pattern in HOSTILE.iter().flat_map(|line| line.split('·')) {
        let text = pattern.repeat(BYTES / pattern.len());
        for text in [text.clone(), format!("|a|b|\n|-|-|\n|{text}\n\n{text}{}", "]*`)".repeat(4000))] {
            let started = Instant::now();
            let blocks = markdown(&text);
            Growing::default().push(&text);
            drop(blocks);
            let took = started.elapsed().as_millis();
            if took > 2000 {
                slow.push((pattern, took));
            }
        }
    }
    assert!(slow.is_empty(), "milliseconds: {slow:?}");
}

#[test]
fn nested_lists_deepening_line_by_line_are_read() {
    let mut text = String::new();
    for depth in 0..300 {
        text += &" ".repeat(depth * 2);
        text += "- a\n";
    }
    assert!(show(&markdown(&text)).starts_with("ul(li(p(a) ul("));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_division_gives_the_blocks_of_the_whole(
        pieces in prop::collection::vec(
            prop_oneof![
                3 => prop::sample::select(vec![
                    "\n", "\n\n", " ", "   ", "    ", "\t", "\r\n", "- ", "* ", "1. ", "12", ") ", "> ", "# ", "##", "```", "~~~", "`", "rs\n",
                    "**", "*", "_", "~~", "$", "$$", "\\[", "\\]", "\\(", "\\", "|", "|-|-|\n", "| a | b |\n", "---", "===", "[a]: b\n", "[", "](",
                    "[x] ", ")", "!", "<div>", "<!--", "-->", "<br>", "&amp;", "https://e.org",
                ]).prop_map(str::to_owned),
                1 => "[a-z中文。，0-9 ]{1,6}",
                1 => "\\PC{0,3}",
            ],
            0..60,
        )
    ) {
        let text = pieces.concat();
        let whole = markdown(&text);
        prop_assert_eq!(grow(pieces.iter().map(String::as_str)), whole.clone(), "of {:?}", text);
        let chars: Vec<String> = text.chars().map(String::from).collect();
        prop_assert_eq!(grow(chars.iter().map(String::as_str)), whole, "of {:?} by characters", text);
    }
}
