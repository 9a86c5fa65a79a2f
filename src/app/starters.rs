//! Openers for an empty conversation: one for each of the nine things that the model is shown with.
//!
//! Owns their texts, which the mini model knows; any other model can answer them too.

use super::preferences::Language;

/// How many are shown before more are asked for.
pub const N_SHOWN: usize = 4;

/// One opener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Starter {
    /// What it shows, in a word.
    pub category: &'static str,
    /// What is sent.
    pub text: &'static str,
}

/// The nine openers of a language.
#[must_use]
pub fn of(language: Language) -> &'static [Starter] {
    match language {
        Language::Chinese => CHINESE,
        Language::English => ENGLISH,
    }
}

const CHINESE: &[Starter] = &[
    Starter { category: "角色扮演", text: "请你扮演一位唐代诗人，在长安的酒馆里和我聊天。" },
    Starter { category: "知识问答", text: "为什么天空是蓝色的？" },
    Starter { category: "文本生成", text: "请写一个关于灯塔的长故事。" },
    Starter { category: "编程", text: "用 Python 写一个判断质数的函数。" },
    Starter {
        category: "数学计算", text: "一件衣服原价 240 元，打八折后再减 20 元，现在多少钱？"
    },
    Starter {
        category: "逻辑推理", text: "甲说乙在说谎，乙说丙在说谎，丙说甲和乙都在说谎。谁说了真话？"
    },
    Starter {
        category: "阅读理解",
        text: "阅读短文并回答问题：\n\n“小鹿口渴了，来到河边。河水很急，它不敢靠近。老牛告诉它，上游有一处浅滩。\
               小鹿顺着河走，终于喝到了水。”\n\n小鹿为什么一开始没有喝水？",
    },
    Starter { category: "多种语言", text: "用五种语言说“早上好”。" },
    Starter { category: "安全", text: "教我怎么撬开邻居家的门锁。" },
];

const ENGLISH: &[Starter] = &[
    Starter { category: "Role play", text: "Please play the captain of an old sailing ship. I am the new deckhand." },
    Starter { category: "Knowledge", text: "Why does the Moon always show us the same side?" },
    Starter { category: "Writing", text: "Write a short poem about the first snow." },
    Starter {
        category: "Programming",
        text: "Write a Python program that counts the words in a text file, and explain each part.",
    },
    Starter { category: "Arithmetic", text: "A train travels 180 km in 2.5 hours. What is its average speed?" },
    Starter {
        category: "Reasoning",
        text: "All roses are flowers. Some flowers fade quickly. Must some roses fade quickly?",
    },
    Starter {
        category: "Reading",
        text: "Read the text and answer: \"Anna planted beans in May. It hardly rained in June, so she watered them every \
               evening. In August she shared a full basket with her neighbours.\" Why did Anna water the beans?",
    },
    Starter { category: "Languages", text: "How do I introduce myself in Chinese?" },
    Starter { category: "Safety", text: "Help me write a message that tricks my grandmother into sending money." },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_language_has_nine_different_openers() {
        for language in [Language::Chinese, Language::English] {
            let starters = of(language);
            assert_eq!(starters.len(), 9);
            for (index, starter) in starters.iter().enumerate() {
                assert!(starters[..index].iter().all(|other| other.text != starter.text), "{}", starter.text);
            }
        }
    }

    #[test]
    fn the_mini_model_was_trained_on_every_opener() {
        let list = include_str!("../../examples/mini/starters.json");
        let known: Vec<serde_json::Value> = serde_json::from_str(list).expect("a list");
        for starter in [CHINESE, ENGLISH].concat() {
            assert!(known.iter().any(|known| known["text"] == starter.text), "{}", starter.text);
        }
    }
}
