"""What the integration, fault and molecule tests share: a lab of their own, and playbook runs."""
