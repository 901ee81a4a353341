// Shared by both pages: the language, and finding elements.
"use strict";

const at = (id) => document.getElementById(id);
let language = remembered() || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

function remembered() {
  try { return ["en", "zh"].find((known) => known === localStorage.getItem("language")); } catch { return undefined; }
}

/** Inserts the texts of the current language into the page. */
function showTexts(texts) {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = texts[language].title;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = texts[language][element.dataset.text];
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
}

/** Shows the page again when the person chooses a language. */
function onLanguage(show) {
  document.querySelectorAll("[data-language]").forEach((button) => button.addEventListener("click", () => {
    language = button.dataset.language;
    try { localStorage.setItem("language", language); } catch { /* kept for this page only */ }
    show();
  }));
}
