//! The conversation that is led, and how it is written to a file.
//!
//! Pure. **Architecture Invariant:** questions and answers take turns, but for a question that is being answered.

use std::path::Path;

use serde_json::json;

use crate::{
    chat::{list::made_title, message::MessageText, message::Role},
    engine::prompt::Turn,
};

/// A conversation.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// The system prompt; not blank.
    pub(super) system: Option<String>,
    turns: Vec<Turn>,
}

impl Talk {
    /// A conversation without turns; a blank system prompt is none.
    pub(super) fn new(system: Option<String>) -> Self {
        Self { system: system.filter(|text| !text.trim().is_empty()), turns: Vec::new() }
    }

    /// All turns, oldest first, the system prompt before them.
    pub(super) fn turns(&self) -> Vec<Turn> {
        self.system.iter().map(Turn::system).chain(self.turns.iter().cloned()).collect()
    }

    /// Says something that is to be answered.
    pub(super) fn ask(&mut self, text: MessageText) {
        self.turns.push(Turn::user(text));
    }

    /// Forgets what was asked last and not answered.
    pub(super) fn take_back(&mut self) {
        self.turns.pop();
    }

    /// Keeps the answer.
    pub(super) fn answered(&mut self, answer: Turn) {
        self.turns.push(answer);
    }

    /// Forgets all turns.
    pub(super) fn reset(&mut self) {
        self.turns.clear();
    }

    /// The text of a file with this conversation: Markdown or JSON, as its name says; or why there is none.
    pub(super) fn document(&self, path: &Path, model: &str) -> Result<String, String> {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        match extension.as_str() {
            "md" | "markdown" => Ok(self.markdown(model)),
            "json" => Ok(self.json(model)),
            _ => Err(format!("{} is neither a .md nor a .json file", path.display())),
        }
    }

    fn title(&self) -> String {
        self.turns.first().map_or_else(String::new, |turn| made_title(&turn.text))
    }

    fn markdown(&self, model: &str) -> String {
        let sections = self.turns().into_iter().map(|turn| {
            let speaker = match turn.role {
                Role::System => "System",
                Role::User => "User",
                Role::Exec => "Exec",
                Role::Assistant => model,
            };
            format!("\n## {speaker}\n\n{}\n", turn.text)
        });
        std::iter::once(format!("# {}\n", self.title())).chain(sections).collect()
    }

    fn json(&self, model: &str) -> String {
        let message = |turn: &Turn| json!({ "role": turn.role, "text": turn.text });
        let document = json!({
            "title": self.title(),
            "model": model,
            "system": self.system.as_deref().unwrap_or_default(),
            "messages": self.turns.iter().map(message).collect::<Vec<_>>(),
        });
        format!("{document:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk() -> Talk {
        let mut talk = Talk::new(Some("你是李白。".into()));
        talk.ask(MessageText::parse("你好\n# x").unwrap());
        talk.answered(Turn::assistant("```\n你好\n```"));
        talk
    }

    #[test]
    fn the_system_prompt_comes_first_and_stays_when_the_turns_go() {
        let mut talk = talk();
        assert_eq!(talk.turns().len(), 3);
        talk.ask(MessageText::parse("?").unwrap());
        talk.take_back();
        assert_eq!(talk.turns().len(), 3);
        talk.reset();
        assert_eq!(talk.turns(), [Turn::system("你是李白。")]);
        assert!(Talk::new(Some(" \n".into())).turns().is_empty());
    }

    #[test]
    fn a_file_is_written_as_its_name_says() {
        let (talk, of) = (talk(), |name: &str| talk().document(Path::new(name), "mini"));
        let markdown = "# 你好\n\n## System\n\n你是李白。\n\n## User\n\n你好\n# x\n\n## mini\n\n```\n你好\n```\n";
        assert_eq!(of("a.md").unwrap(), markdown);
        assert_eq!(of("A.MD").unwrap(), markdown);
        let json: serde_json::Value = serde_json::from_str(&of("a.json").unwrap()).unwrap();
        let messages =
            json!([{ "role": "user", "text": "你好\n# x" }, { "role": "assistant", "text": "```\n你好\n```" }]);
        assert_eq!(json, json!({ "title": "你好", "model": "mini", "system": "你是李白。", "messages": messages }));
        for name in ["a", "a.txt", ".md"] {
            assert!(talk.document(Path::new(name), "mini").unwrap_err().contains(name), "{name}");
        }
    }
}
