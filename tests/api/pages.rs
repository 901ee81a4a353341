//! The texts of the pages: JavaScript takes the last of two members of the same name, without a word.

use std::collections::HashSet;
use std::iter::Peekable;
use std::str::Chars;

const PAGES: [(&str, &str); 3] = [
    ("texts.js", include_str!("../../src/api/page/texts.js")),
    ("receiver.js", include_str!("../../src/bin/event-receive-server/page/receiver.js")),
    ("boxes.js", include_str!("../../src/bin/event-receive-server/page/boxes.js")),
];

/// A part of a script.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text,
    Sign(char),
}

/// Splits a script without regular expressions.
struct Tokens<'a>(Peekable<Chars<'a>>);

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let is_word = |letter: &char| letter.is_alphanumeric() || "_$".contains(*letter);
        let first = self.0.find(|letter| !letter.is_whitespace())?;
        Some(match first {
            '"' | '\'' => self.text(first),
            '`' => self.template(),
            '/' if self.0.peek() == Some(&'/') => {
                self.0.find(|letter| *letter == '\n');
                return self.next();
            }
            first if is_word(&first) => {
                let mut word = String::from(first);
                while let Some(letter) = self.0.next_if(is_word) {
                    word.push(letter);
                }
                Token::Word(word)
            }
            sign => Token::Sign(sign),
        })
    }
}

impl Tokens<'_> {
    /// The rest of a text in quotes.
    fn text(&mut self, end: char) -> Token {
        while let Some(letter) = self.0.next().filter(|letter| *letter != end) {
            if letter == '\\' {
                self.0.next();
            }
        }
        Token::Text
    }

    /// The rest of a text in backquotes, with what is computed in it.
    fn template(&mut self) -> Token {
        while let Some(letter) = self.0.next().filter(|letter| *letter != '`') {
            if letter == '\\' {
                self.0.next();
            } else if letter == '$' && self.0.next_if_eq(&'{').is_some() {
                let mut depth = 1;
                while depth > 0 {
                    match self.next().expect("it ends") {
                        Token::Sign('{') => depth += 1,
                        Token::Sign('}') => depth -= 1,
                        _ => {}
                    }
                }
            }
        }
        Token::Text
    }
}

/// The members that an object of `TEXTS` has twice, and how many members there are.
fn repeated(script: &str) -> (Vec<String>, usize) {
    let (_, texts) = script.split_once("const TEXTS = ").unwrap();
    let (mut objects, mut twice, mut count) = (Vec::<HashSet<String>>::new(), Vec::new(), 0);
    let mut before = Token::Sign(' ');
    let mut tokens = Tokens(texts.chars().peekable()).peekable();
    while let Some(token) = tokens.next() {
        match &token {
            Token::Sign('{') => objects.push(HashSet::new()),
            Token::Sign('}') => drop(objects.pop()),
            Token::Word(name)
                if tokens.peek() == Some(&Token::Sign(':'))
                    && [Token::Sign('{'), Token::Sign(',')].contains(&before) =>
            {
                count += 1;
                let is_new = objects.last_mut().unwrap().insert(name.clone());
                twice.extend((!is_new).then(|| name.clone()));
            }
            _ => {}
        }
        before = token;
        if objects.is_empty() {
            break;
        }
    }
    (twice, count)
}

#[test]
fn no_text_of_a_page_is_there_twice() {
    let example = r#"const TEXTS = { en: { a: (n) => `${n ? `b: ${{ c: 1 }}` : "x"}`, b: "{ a: 1, a: 2 }", // c: 1
        c: { a: "" }, a: "" } };"#;
    assert_eq!(repeated(example), (vec!["a".to_owned()], 6));
    for (page, script) in PAGES {
        let (twice, count) = repeated(script);
        assert!(twice.is_empty() && count > 40, "{page}: {twice:?}, of {count}");
    }
}
