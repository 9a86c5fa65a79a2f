//! Simplified Chinese.

use super::{AnswerTexts, ComposerTexts, EngineTexts, ListTexts, SettingText, SettingsTexts, StartTexts, Texts};
use crate::{
    app::{format, preferences::Language},
    chat::{error::ErrorCode, event::EndReason},
};

/// All words in Simplified Chinese.
pub static TEXTS: Texts = Texts {
    language: Language::Chinese,
    new_chat: "新对话",
    other_language: "English",
    theme: "外观",
    theme_system: "跟随系统",
    theme_light: "浅色",
    theme_dark: "深色",
    transcript: "对话",
    you: "你",
    assistant: "模型",
    exec: "工具结果",
    composer: ComposerTexts {
        label: "输入消息",
        placeholder: "想聊点什么？",
        placeholder_exec: "粘贴工具返回的结果",
        send: "发送",
        stop: "停止",
        stopping: "正在停止…",
        role: "以什么身份发言",
        role_user: "用户",
        role_exec: "工具",
        role_unsupported: "当前模型的提示格式（v1）没有工具角色，因此这里不可选。",
        held: "稍后自动发送",
        held_cancel: "取回",
        caution: "回答由模型生成，可能有误，请自行核实。",
    },
    start: StartTexts {
        greeting: "你好，今天聊点什么？",
        invitation: "直接输入，或从一个例子开始。",
        more: "更多",
        mini_banner: "当前运行的是随项目附带的迷你模型：它只记得自己的训练对话，除此之外什么都不懂，仅用于演示。",
    },
    answer: AnswerTexts {
        copy: "复制",
        copied: "已复制",
        copy_failed: "复制失败，请手动选择文字",
        regenerate: "重新回答",
        go_on: "继续",
        edit: "编辑",
        say_instead: "发送",
        cancel: "取消",
        previous: "上一个分支",
        next: "下一个分支",
        sending: "正在发送…",
        queued: "排队中…",
        queued_at: |place| format!("排队中 · 第 {place} 位"),
        reading: |done, total| match total {
            0 => "正在阅读…".to_owned(),
            total => format!("正在阅读 · {} / {} 个词元", format::count(done.into()), format::count(total.into())),
        },
        end,
        tokens: |tokens| format!("{} 个词元", format::count(tokens.into())),
        speed: |speed| format!("{speed} 词元/秒"),
        first_token: |time| format!("首个词元 {time}"),
        reused: |reused, prompt| {
            format!("提示复用 {} / {}", format::count(reused.into()), format::count(prompt.into()))
        },
        dropped: |rounds| format!("最早的 {rounds} 轮已超出上下文，未参与回答"),
        dropped_system: "系统提示已超出上下文，未参与回答",
        sampled_with: "采样参数",
    },
    list: ListTexts {
        title: "对话列表",
        toggle: "对话列表（Ctrl+B）",
        search: "搜索对话（Ctrl+K）",
        empty: "对话会出现在这里。",
        nothing_found: "没有找到。",
        running: "正在回答",
        more: "更多",
        rename: "重命名",
        delete: "删除",
        deleted: "已删除",
        undo: "撤销",
        link: "在其他设备上使用",
        link_use: "在另一台设备上打开此链接，那里就能看到这里的全部对话。谁打开它都能看到，请勿转给他人。",
        link_holds: |minutes| format!("{minutes} 分钟内有效，仅可使用一次。"),
        offer_title: "在这里使用另一台设备的对话？",
        offer_text: "确认后，这里会显示生成此链接的设备上的对话，本浏览器中的对话也会并入其中，两边都能看到。                     只接受你自己生成的链接。",
        offer_take: "是我生成的，确认",
        link_gone: "链接已失效或已被使用，请重新生成。",
    },
    settings: SettingsTexts {
        title: "设置",
        changed: "已改动",
        reset: "恢复默认",
        reset_all: "全部恢复默认",
        default: |value| format!("默认 {value}"),
        out_of_range: |min, max| format!("请填 {min} 到 {max} 之间的数"),
        seed_random: "随机",
        temperature: SettingText {
            name: "温度", help: "越高越发散，越低越稳定；0 表示总取最可能的词元。"
        },
        top_k: SettingText {
            name: "Top-k", help: "每一步只在最可能的 k 个词元里抽取；0 表示不限。"
        },
        top_p: SettingText { name: "Top-p", help: "只在累计概率达到 p 的最可能词元里抽取。" },
        repetition_penalty: SettingText {
            name: "重复惩罚", help: "大于 1 时，出现过的词元更不容易再出现。"
        },
        max_new_tokens: SettingText { name: "最长回答", help: "一条回答最多生成多少个词元。" },
        seed: SettingText {
            name: "随机种子", help: "同样的种子、设置和对话会得到同样的回答；留空则每次不同。"
        },
        system: SettingText {
            name: "系统提示", help: "设定模型的身份与规矩，从下一条消息起生效，只用于当前对话。"
        },
        system_unsupported: "当前模型的提示格式（v1）没有系统角色，因此这里不可用；可以把设定写进第一条消息。",
        system_placeholder: "例如：你是一位耐心的语文老师。",
    },
    engine: EngineTexts {
        title: "模型信息",
        loading: "模型加载中…",
        loading_hint: "可以先写，模型就绪后会立即发送。",
        unavailable: "模型不可用",
        model: "模型",
        parameters: "参数量",
        device: "设备",
        dtype: "精度",
        weights: "权重内存",
        context: "上下文长度",
        kv_capacity: "缓存容量",
        prompt_format: "提示格式",
        load_time: "加载用时",
        load: "当前负载",
        running_waiting: |running, waiting| format!("{running} 个在生成，{waiting} 个在排队"),
        n_tokens: |tokens| format!("{tokens} 个词元"),
        bits: |bits| format!("量化 {bits} 位"),
    },
    jump_latest: "回到最新",
    close: "关闭",
    reconnecting: "连接中断，正在重新连接…",
    answered_elsewhere: "刚才的消息正在另一个对话中回答，点此查看。",
    server_forgot: "服务器已没有这条回答的记录，已显示的内容保留在这里。",
    unsaved: "此对话没有保存：服务器的磁盘可能已满，或者只读。服务器重启后它会丢失。",
    missing_title: "没有这个对话",
    missing_text: "链接可能有误，对话可能已删除，或者它属于别人。",
    opening: "正在打开对话…",
    try_again: "重试",
    announce_answering: "正在回答",
    error_code,
    retry_in: |seconds| format!("请在 {seconds} 秒后重试。"),
};

fn end(reason: EndReason) -> &'static str {
    match reason {
        EndReason::EndOfText => "回答完毕",
        EndReason::Length => "达到长度上限",
        EndReason::StopString => "遇到停止词",
        EndReason::Stopped => "已停止",
        EndReason::Interrupted => "已中断",
        EndReason::Failed { code } => error_code(code),
    }
}

fn error_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::MessageEmpty => "消息是空的。",
        ErrorCode::MessageTooLong => "消息太长了。",
        ErrorCode::PromptTooLong => "这条消息超出了模型的上下文长度。",
        ErrorCode::SettingOutOfRange => "有一项设置超出范围。",
        ErrorCode::RoleUnsupported => "当前模型的提示格式不支持这个角色。",
        ErrorCode::NotFound => "找不到这个对话。",
        ErrorCode::Conflict => "上一条回答还没有结束，请稍后再试。",
        ErrorCode::ConversationFull => "这个对话已经写满，请开始新对话。",
        ErrorCode::TooManyConversations => "对话数量已达上限，请先删除一个再开始新对话。",
        ErrorCode::TooManyAnswers => "同时生成的回答已达上限，请等其中一个结束，或先停止它。",
        ErrorCode::TooManyRequests => "操作太频繁了，请稍等片刻。",
        ErrorCode::OtherModel => "这条回答由另一个模型写成，当前模型无法续写，可以重新生成。",
        ErrorCode::AccessDenied => "还没有登录，或登录已失效，请用访问令牌登录。",
        ErrorCode::QueueFull => "排队的人太多了。",
        ErrorCode::ModelLoading => "模型还在加载。",
        ErrorCode::ShuttingDown => "服务器正在关闭。",
        ErrorCode::EngineRestarted => "推理引擎出错并已重启，请重试。",
        ErrorCode::EngineStalled => "推理引擎没有响应，请稍后再试。",
        ErrorCode::UpstreamUnreachable => "模型服务器连不上或太忙，请稍后再试。",
        ErrorCode::UpstreamRefused => "模型服务器拒绝了请求，运行本页的人可在日志里找到原因。",
        ErrorCode::UpstreamRejected => "模型服务器不接受这样的请求，可以改一改消息或设置再试。",
        ErrorCode::UpstreamBroke => "模型服务器在回答途中出错，请重试。",
        ErrorCode::NotANumber => "模型算出了无效的数值，请重试或调整设置。",
        ErrorCode::Malformed => "页面与服务器没能互相理解，请重新加载页面。",
        ErrorCode::Unreachable => "连不上服务器，请检查网络后再试。",
        ErrorCode::Internal => "服务器内部出错，请重试。",
    }
}
